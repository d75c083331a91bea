"""Screens for personal data: three compiled passes that mark the few windows of a text in which some may stand.

Each pass reads every byte once and looks no further than a fixed number of bytes around a mark,
    or to the end of what it
has just read: linear time whatever the text. What the windows hold is decided in `pii_numbers` and `pii_words`.
A window is four int64: the row, first byte and end (in `data`), and what to look for.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

# What to look for in a window.
DIGITS, QUAD, COLONS, AT, ASSIGNMENT, PEM, TOKEN, IBAN = (1 << bit for bit in range(8))

MIN_DIGITS = 7  # of a phone number without a country code
_LONGEST_TOKEN = 4096
_MIN_TOKEN = 16
# How the names end, in lower case, to which secrets are assigned; at most _KEY_BYTES of each.
_KEY_ENDS = (
    "ssword", "passwd", "pwd", "pass", "sscode", "phrase", "secret", "token", "key", "zation", "密码", "密碼", "口令",
    "令牌", "密钥", "密鑰",
)  # fmt: skip
_KEY_BYTES = 6
_KEYS = np.array([int.from_bytes(end.encode(), "big") for end in _KEY_ENDS], np.int64)
_KEY_MASKS = np.array([(1 << 8 * len(end.encode())) - 1 for end in _KEY_ENDS], np.int64)
# First two bytes of the tokens that `pii_words` knows.
TOKEN_STARTS = ("A3", "AB", "AC", "AK", "AS", "AI", "GO", "LT", "SG", "do", "ey", "gh", "gi", "gl", "hf", "ho", "np",
    "py", "rk", "sh", "sk",
                "xa", "xo", "ya")  # fmt: skip
_STARTS = np.zeros(1 << 16, np.bool_)
for _start in TOKEN_STARTS:
    _STARTS[int.from_bytes(_start.encode(), "big")] = True
_SHORT_STARTS = np.zeros(1 << 16, np.bool_)  # of those with a dot in their first 16 bytes
for _start in ("SG", "ho", "ya"):
    _SHORT_STARTS[int.from_bytes(_start.encode(), "big")] = True

_WORD, _DIGIT, _UPPER, _HEX, _SEPARATOR, _NOT_SPACE = 1, 2, 4, 8, 16, 32
_BYTES = np.zeros(256, np.uint8)
for _byte in range(256):
    _char = chr(_byte)
    if _char.isascii() and (_char.isalnum() or _char in "_-"):
        _BYTES[_byte] |= _WORD
    if _char in "0123456789":
        _BYTES[_byte] |= _DIGIT
    if _char in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        _BYTES[_byte] |= _UPPER
    if _char in "0123456789abcdefABCDEF":
        _BYTES[_byte] |= _HEX
    if _char in " -.()/+":
        _BYTES[_byte] |= _SEPARATOR
    if _byte > 0x20:
        _BYTES[_byte] |= _NOT_SPACE


def numbers(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Mark runs of digits and the separators of phone numbers (DIGITS), those with four groups and dots (QUAD)."""
    return _numbers(data, offsets, _BYTES)


def marks(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Mark at signs (AT), runs with the colons of IPv6 (COLONS), assignments (ASSIGNMENT), PEM headers (PEM)."""
    return _marks(data, offsets, _BYTES, _KEYS, _KEY_MASKS)


def words(data: np.ndarray, offsets: np.ndarray, iban_lengths: np.ndarray) -> np.ndarray:
    """Mark words that begin as a known token does (TOKEN) or as an IBAN (IBAN).

    iban_lengths: uint8[676], the characters of an IBAN by country (first letter × 26 + second), 0 where there is none.
    """
    return _words(data, offsets, _BYTES, _STARTS, _SHORT_STARTS, iban_lengths)


@numba.njit(nogil=True, cache=True, inline="always")
def _digit(data: np.ndarray, at: int, end: int, kinds: np.ndarray) -> int:
    """Give the bytes of the digit here: 1, 3 for a full-width one, 0 for none."""
    if kinds[data[at]] & _DIGIT:
        return 1
    if data[at] == 0xEF and at + 2 < end and data[at + 1] == 0xBC and 0x90 <= data[at + 2] <= 0x99:
        return 3
    return 0


@numba.njit(nogil=True, cache=True, inline="always")
def _separator(data: np.ndarray, at: int, end: int, kinds: np.ndarray) -> int:
    """Give the bytes of the separator here, full-width forms and typographic dashes and spaces included; 0 for none."""
    byte = data[at]
    if byte < 0x80:
        return 1 if kinds[byte] & _SEPARATOR else 0
    if byte == 0xC2:
        return 2 if at + 1 < end and data[at + 1] == 0xA0 else 0
    if at + 2 >= end:
        return 0
    second, third = data[at + 1], data[at + 2]
    if byte == 0xE2:
        return 3 if (second == 0x80 and 0x90 <= third <= 0x95) or (second == 0x88 and third == 0x92) else 0
    if byte == 0xE3:
        return 3 if second == 0x80 and third == 0x80 else 0
    if byte == 0xEF and second == 0xBC:
        return 3 if third in (0x88, 0x89, 0x8B, 0x8D, 0x8E, 0x8F) else 0
    return 0


@numba.njit(nogil=True, cache=True, inline="always")
def _is_boring(groups: int, sizes: Any, ones: int, dots: int) -> bool:
    """Say whether digits are a range of years, a decimal fraction or a date. ones: groups that begin with 1 or 2."""
    first, second, third = sizes
    if groups == 2:
        return dots == 1 or (first == 4 and second == 4 and ones == 2)
    if groups == 3:
        return (first == 4 and second <= 2 and third <= 2) or (third == 4 and first <= 2 and second <= 2)
    return False


@numba.njit(nogil=True, cache=True)
def _numbers(data: np.ndarray, offsets: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    found = [(np.int64(0), np.int64(0), np.int64(0), np.int64(0)) for _ in range(0)]
    for row in range(offsets.shape[0] - 1):
        at, last = offsets[row], offsets[row + 1]
        while at < last:
            if not kinds[data[at]] & _DIGIT and data[at] != 0xEF:
                at += 1
                continue
            width = _digit(data, at, last, kinds)
            if width == 0:
                at += 1
                continue
            start = end = at
            first, second, third = 0, 0, 0
            digits, groups, ones, dots, size, gap, chain, quad = 0, 0, 0, 0, 0, 0, 0, False
            while at < last:
                width = _digit(data, at, last, kinds)
                if width:
                    if gap or groups == 0:
                        groups += 1
                        by_dot = gap == 1 and (data[at - 1] == 0x2E or (data[at - 1] == 0x8E and at - start > 2))
                        dots += by_dot
                        chain = chain + 1 if by_dot and size <= 3 else 0
                        size, gap = 0, 0
                        ones += data[at] == 0x31 or data[at] == 0x32
                    size += 1
                    digits += 1
                    if groups == 1:
                        first = size
                    elif groups == 2:
                        second = size
                    elif groups == 3:
                        third = size
                    quad = quad or chain == 3
                    at += width
                    end = at
                else:
                    width = _separator(data, at, last, kinds)
                    if width == 0 or gap == 3:
                        break
                    gap += 1
                    at += width
            what = 0
            if digits >= MIN_DIGITS and not (digits <= 8 and _is_boring(groups, (first, second, third), ones, dots)):
                what |= DIGITS
            if quad:
                what |= QUAD
            if what:
                found.append((np.int64(row), start, end, np.int64(what)))
            at = end
    return _table(found)


@numba.njit(nogil=True, cache=True)
def _table(found: Any) -> np.ndarray:
    out = np.empty((len(found), 4), np.int64)
    for i in range(len(found)):
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = found[i]
    return out


@numba.njit(nogil=True, cache=True, inline="always")
def _is_assigned(data: np.ndarray, at: int, first: int, keys: np.ndarray, masks: np.ndarray) -> bool:
    """Say whether what ends before data[at], spaces and quotes aside, ends as the name of a secret does."""
    stop = max(first, at - 8)
    while at > stop:
        byte = data[at - 1]
        if byte == 0x20 or byte == 0x22 or byte == 0x27 or byte == 0x60 or byte == 0x5D or byte == 0x2A:
            at -= 1
        elif at - first >= 3 and (
            (byte == 0xAF and data[at - 2] == 0x98 and data[at - 3] == 0xE6)  # 是
            or (byte == 0xBA and data[at - 2] == 0xB8 and data[at - 3] == 0xE4)  # 为
        ):
            at -= 3
        else:
            break
    packed = np.int64(0)
    for i in range(max(first, at - _KEY_BYTES), at):
        byte = data[i]
        packed = packed << 8 | np.int64(byte | 0x20 if 0x41 <= byte <= 0x5A else byte)
    for i in range(keys.shape[0]):  # noqa: SIM110 - numba has no any()
        if packed & masks[i] == keys[i]:
            return True
    return False


@numba.njit(nogil=True, cache=True, inline="always")
def _has_dot(data: np.ndarray, at: int, end: int, kinds: np.ndarray) -> bool:
    """Say whether a dot follows within the characters of a label of a domain, of which there is one at least."""
    stop = min(end, at + 192)
    start = at
    while at < stop and (kinds[data[at]] & _WORD or data[at] >= 0x80):
        if data[at] == 0x8E and at - start > 2 and data[at - 1] == 0xBC and data[at - 2] == 0xEF:  # ．
            return True
        at += 1
    if at == start or at + 1 >= end or data[at] != 0x2E:
        return False
    return kinds[data[at + 1]] & _WORD != 0 or data[at + 1] >= 0x80


@numba.njit(nogil=True, cache=True)
def _marks(data: np.ndarray, offsets: np.ndarray, kinds: np.ndarray, keys: np.ndarray, masks: np.ndarray) -> np.ndarray:
    found = [(np.int64(0), np.int64(0), np.int64(0), np.int64(0)) for _ in range(0)]
    for row in range(offsets.shape[0] - 1):
        at, last = offsets[row], offsets[row + 1]
        first = begin = at  # begin: what comes before was already part of a run of colons
        while at < last:
            byte = data[at]
            if byte == 0x40:
                if at > first and data[at - 1] < 0x80 and _has_dot(data, at + 1, last, kinds):
                    found.append((np.int64(row), at, at + 1, np.int64(AT)))
            elif byte == 0x3A:
                start = end = at
                while start > begin and (kinds[data[start - 1]] & _HEX or data[start - 1] == 0x3A) and at - start < 48:
                    start -= 1
                colons, double = 0, False
                while end < last and (kinds[data[end]] & _HEX or data[end] == 0x3A or data[end] == 0x2E):
                    if data[end] == 0x3A:
                        colons += 1
                        double = double or (end > first and data[end - 1] == 0x3A)
                    end += 1
                is_part = (start > first and kinds[data[start - 1]] & _WORD) or (
                    end < last and kinds[data[end]] & _WORD
                )
                if (double or colons >= 7) and colons + 1 < end - start <= 64 and colons > 1 and not is_part:
                    found.append((np.int64(row), start, end, np.int64(COLONS)))
                if _is_assigned(data, at, first, keys, masks):
                    found.append((np.int64(row), at, at + 1, np.int64(ASSIGNMENT)))
                if colons > 1:
                    begin = at = end
                    continue
            elif byte == 0xAF or byte == 0xBA:  # the end of 是, 为: 密码是…
                if at + 1 < last and data[at + 1] < 0x80 and _is_assigned(data, at + 1, first, keys, masks):
                    found.append((np.int64(row), at - 2, at + 1, np.int64(ASSIGNMENT)))
            elif byte == 0x3D:
                if _is_assigned(data, at, first, keys, masks):
                    found.append((np.int64(row), at, at + 1, np.int64(ASSIGNMENT)))
            elif byte == 0x2D:
                if at + 10 < last and data[at + 5] == 0x42 and data[at + 1] == 0x2D and data[at + 4] == 0x2D:
                    found.append((np.int64(row), at, at + 10, np.int64(PEM)))
            elif byte == 0xEF and at + 2 < last and data[at + 1] == 0xBC:
                third = data[at + 2]
                if third == 0xA0 and _has_dot(data, at + 3, last, kinds):
                    found.append((np.int64(row), at, at + 3, np.int64(AT)))
                elif (third == 0x9A or third == 0x9D) and _is_assigned(data, at, first, keys, masks):
                    found.append((np.int64(row), at, at + 3, np.int64(ASSIGNMENT)))
            at += 1
    return _table(found)


@numba.njit(nogil=True, cache=True, inline="always")
def _iban_end(data: np.ndarray, at: int, end: int, kinds: np.ndarray, lengths: np.ndarray) -> int:
    """Give the end of the characters, blanks between them, that an IBAN beginning here would have; 0 for none."""
    if at + 4 > end or not (kinds[data[at]] & _UPPER and kinds[data[at + 1]] & _UPPER):
        return 0
    if not (kinds[data[at + 2]] & _DIGIT and kinds[data[at + 3]] & _DIGIT):
        return 0
    left = np.int64(lengths[(np.int64(data[at]) - 65) * 26 + np.int64(data[at + 1]) - 65])
    if left == 0:
        return 0
    gap = False
    while at < end and left:
        if kinds[data[at]] & (_UPPER | _DIGIT):
            left -= 1
            gap = False
        elif data[at] != 0x20 or gap:
            return 0
        else:
            gap = True
        at += 1
    return 0 if left else at


@numba.njit(nogil=True, cache=True)
def _words(
    data: np.ndarray,
    offsets: np.ndarray,
    kinds: np.ndarray,
    starts: np.ndarray,
    short_starts: np.ndarray,
    iban_lengths: np.ndarray,
) -> np.ndarray:
    found = [(np.int64(0), np.int64(0), np.int64(0), np.int64(0)) for _ in range(0)]
    for row in range(offsets.shape[0] - 1):
        at, last = offsets[row], offsets[row + 1]
        seen = at  # what lies before was in a window for tokens
        while at < last:
            if not kinds[data[at]] & _WORD:
                at += 1
                continue
            start = at
            while at < last and kinds[data[at]] & _WORD:
                at += 1
            if at - start < 2:
                continue
            head = np.int64(data[start]) << 8 | np.int64(data[start + 1])
            if starts[head] and start >= seen:
                by_dot = short_starts[head] and at < last and data[at] == 0x2E
                if at - start >= _MIN_TOKEN or by_dot:
                    end = at
                    while end < last and end - start < _LONGEST_TOKEN and kinds[data[end]] & _NOT_SPACE:
                        end += 1
                    found.append((np.int64(row), start, end, np.int64(TOKEN)))
                    seen = end
            end = _iban_end(data, start, last, kinds, iban_lengths)
            if end:
                found.append((np.int64(row), start, np.int64(end), np.int64(IBAN)))
    return _table(found)
