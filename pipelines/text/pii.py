"""Personal data and secrets in texts: find them, and redact, hash, drop or report them.

Compiled screens (`pii_screen`) mark the few windows of a text that can hold something; bounded expressions and check
digits decide what they hold (`pii_numbers`, `pii_addresses`, `pii_words`). Every step is linear in the bytes of the
text. What each kind is, what is left alone, and how well it is found: docs/personal-data.md.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import itertools
import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa

from pipelines.text import pii_addresses, pii_numbers, pii_screen, pii_words
from pipelines.text.unicode import utf8

Mode = Literal["redact", "hash", "drop", "report", "none"]
Kind = Literal["secret", "email", "iban", "cn_id", "card", "ipv6", "ipv4", "phone"]
Scope = Literal["global", "private", "all"]
KINDS: tuple[Kind, ...] = get_args(Kind)  # where two overlap, the first of these is kept
DOCS = {
    "pii_secret": "secrets and keys found",
    "pii_email": "e-mail addresses found",
    "pii_iban": "international bank account numbers found",
    "pii_cn_id": "Chinese resident identity numbers found",
    "pii_card": "payment card numbers found",
    "pii_ipv6": "IPv6 addresses found",
    "pii_ipv4": "IPv4 addresses found",
    "pii_phone": "phone numbers found",
}
SIGNALS: tuple[str, ...] = tuple(DOCS)

_NUMBERS: frozenset[Kind] = frozenset(("cn_id", "card", "ipv4", "phone"))
_MARKS: frozenset[Kind] = frozenset(("secret", "email", "ipv6"))
_WORDS: frozenset[Kind] = frozenset(("secret", "iban"))
_DIGEST_BYTES = 8
_ROUNDS = 8  # what is found may have hidden what stands beside it
_GONE = "\x7f"  # stands for what was found: for the screens no space, as a placeholder is none
_REACH = 320  # bytes around a window that are read at most
_PLACEHOLDER = re.compile(rf"\[(?:{'|'.join(kind.upper() for kind in KINDS)})(?::[a-p]{{{2 * _DIGEST_BYTES}}})?\]")
_HEX_TO_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")  # so that no digest is found as a number


@dataclass(frozen=True)
class PiiConfig:
    """What is done about personal data and secrets.

    mode, of all kinds: "redact" (a typed placeholder, [EMAIL]), "hash" (the placeholder with a keyed digest, so equal
    values stay equal), "drop" (the document is removed), "report" (only counted) or "none" (not looked for).
    modes: of one kind, in place of `mode`, by its name: secret, email, iban, cn_id, card, ipv6, ipv4, phone.
    ip_scope: addresses looked for: "global" (those that can be a person's; not private, reserved or documentation
    addresses, nor open resolvers such as 8.8.8.8), "private" (the reserved ones only: public addresses stay) or "all".
    phone_regions: ISO 3166 codes of the countries whose national numbers (without +) are looked for.
    key_variable: name of the environment variable that holds the key of "hash"; the key itself is in no configuration.
    """

    mode: Mode = "none"
    modes: dict[Kind, Mode] = field(default_factory=dict)
    ip_scope: Scope = "global"
    phone_regions: tuple[str, ...] = (
        "US", "CN", "GB", "DE", "FR", "JP", "IN", "AU", "BR", "IT", "ES", "RU", "KR", "TW", "HK", "NL", "CH", "MX",
    )  # fmt: skip
    key_variable: str = "GRISTMILL_PII_KEY"

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown kind, mode or scope, or for a region where phone numbers are looked for."""
        for what, value, known in (
            *(("mode", mode, get_args(Mode)) for mode in (self.mode, *self.modes.values())),
            *(("kind", kind, KINDS) for kind in self.modes),
            ("ip_scope", self.ip_scope, get_args(Scope)),
        ):
            _check(what, value, known)
        if self.of("phone") != "none":
            for region in self.phone_regions:
                _check("phone region", region, pii_numbers.supported_regions())

    def of(self, kind: Kind) -> Mode:
        """Give the mode of a kind."""
        return self.modes.get(kind, self.mode)

    @property
    def wanted(self) -> tuple[Kind, ...]:
        """The kinds that are looked for."""
        return tuple(kind for kind in KINDS if self.of(kind) != "none")


def _check(what: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise ValueError(f"{what} is one of {', '.join(sorted(known))}; got {value!r}")


class Spans(NamedTuple):
    """What was found, in the order of the texts, without overlaps: four arrays of one length.

    rows, starts, ends: int64, the text and the first byte and end in its UTF-8. kinds: uint8, index in KINDS.
    """

    rows: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    kinds: np.ndarray


def find(texts: pa.Array, config: PiiConfig) -> Spans:
    """Find personal data in a string or large_string array; a null holds none. TypeError for another type.

    What was found is taken out and the text around it read again, until nothing is new or after 8 rounds: a number
    that stood between others, and so was none, is found when these are.
    """
    found: list[tuple[int, int, int, int]] = []
    data, offsets = utf8(texts)
    rows = np.arange(len(texts))
    near = None
    for _ in range(_ROUNDS if config.wanted and len(texts) else 0):
        spans = _round(data, offsets, config, near)
        if not spans:
            break
        first = offsets.tolist()
        found += [(int(rows[row]), start - first[row], end - first[row], kind) for row, start, end, kind in spans]
        data, offsets, hit, near = _without(data, offsets, np.array(spans, np.int64))
        rows = rows[hit]
    table = np.array(_settle(found), np.int64).reshape(-1, 4)
    return Spans(table[:, 0], table[:, 1], table[:, 2], table[:, 3].astype(np.uint8))


def _round(
    data: np.ndarray, offsets: np.ndarray, config: PiiConfig, near: np.ndarray | None
) -> list[tuple[int, int, int, int]]:
    """Find once: (row, first byte and end in `data`, index of the kind). near: look only around these rows of four."""
    wanted = frozenset(config.wanted)
    tables = []
    if wanted & _NUMBERS:
        tables.append(pii_screen.numbers(data, offsets))
    if wanted & _MARKS:
        tables.append(pii_screen.marks(data, offsets))
    if wanted & _WORDS:
        tables.append(pii_screen.words(data, offsets, _iban_lengths()))
    windows = np.concatenate(tables)
    if near is not None:
        apart = 2 * _REACH  # of rows, so that none is near another
        at = np.searchsorted(near[:, 2] + near[:, 0] * apart, windows[:, 1] + windows[:, 0] * apart - _REACH, "right")
        starts = np.append(near[:, 1] + near[:, 0] * apart, np.iinfo(np.int64).max)
        windows = windows[starts[at] < windows[:, 2] + windows[:, 0] * apart + _REACH]
    look = _Look(memoryview(data.data), offsets.tolist(), wanted, config)
    return _settle(itertools.chain.from_iterable(look.window(*window) for window in windows.tolist()))


def _without(
    data: np.ndarray, offsets: np.ndarray, spans: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Copy the texts with spans, _GONE in place of these: (data, offsets, rows copied, spans there)."""
    hit, row = np.unique(spans[:, 0], return_inverse=True)
    copy = np.concatenate([data[offsets[one] : offsets[one + 1]] for one in hit])
    ends = np.concatenate([[0], np.cumsum(offsets[hit + 1] - offsets[hit])]).astype(np.int64)
    moved = spans.copy()
    moved[:, 0] = row
    moved[:, 1:3] += (ends[row] - offsets[spans[:, 0]])[:, None]
    for start, end in moved[:, 1:3].tolist():
        copy[start:end] = ord(_GONE)
    copy.flags.writeable = False  # as utf8 gives it, so that the screens are compiled once
    return copy, ends, hit, moved


@functools.cache
def _iban_lengths() -> np.ndarray:
    return pii_words.iban_lengths()


class _View:
    """The characters around a window: `text` is folded, with line feeds for placeholders, which so are neither label
    nor value; `at` and `end` are those of the window."""

    def __init__(
        self, data: memoryview, bounds: tuple[int, int], start: int, end: int, before: int, after: int
    ) -> None:
        first, last = max(bounds[0], start - before), min(bounds[1], end + after)
        while first < start and data[first] & 0xC0 == 0x80:
            first += 1
        while end < last < bounds[1] and data[last] & 0xC0 == 0x80:
            last -= 1
        self.first, raw = first, bytes(data[first:last])
        self.raw = raw.decode("utf-8", "surrogateescape")
        self.text = pii_numbers.fold(self.raw).replace(_GONE, "\n")
        if "[" in self.text:
            self.text = _PLACEHOLDER.sub(lambda match: "\n" * len(match[0]), self.text)
        self.offsets: list[int] | None = None
        self.at, self.end = start - first, end - first
        if len(self.raw) < len(raw):
            self.at = len(raw[: self.at].decode("utf-8", "surrogateescape"))
            self.end = self.at + len(raw[start - first : self.end].decode("utf-8", "surrogateescape"))

    def byte(self, at: int) -> int:
        """Give the position of a character in the data."""
        if self.raw.isascii():
            return self.first + at
        if self.offsets is None:
            lengths = (len(char.encode("utf-8", "surrogateescape")) for char in self.raw)
            self.offsets = [0, *itertools.accumulate(lengths)]
        return self.first + self.offsets[at]


@dataclass
class _Look:
    """Looks into windows. data: the UTF-8 of all texts; offsets: of each."""

    data: memoryview
    offsets: list[int]
    wanted: frozenset[Kind]
    config: PiiConfig

    def window(self, row: int, start: int, end: int, what: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield what a window holds: (row, first byte, end, index of the kind)."""
        bounds = self.offsets[row], self.offsets[row + 1]
        if what == pii_screen.PEM:
            if "secret" in self.wanted and (block := pii_words.pem(self.data, start, bounds[1])):
                yield row, start, block, KINDS.index("secret")
            return
        if what & (pii_screen.DIGITS | pii_screen.QUAD):
            view, found = _View(self.data, bounds, start, end, 72, 24), self._numbers
        elif what == pii_screen.IBAN:
            view, found = _View(self.data, bounds, start, end, 4, 4), self._iban
        elif what == pii_screen.TOKEN:
            view, found = _View(self.data, bounds, start, end, 8, 4), self._tokens
        elif what == pii_screen.COLONS:
            view, found = _View(self.data, bounds, start, end, 8, 4), self._colons
        elif what == pii_screen.AT:
            view, found = _View(self.data, bounds, start, end, 224, 264), self._at
        else:
            view, found = _View(self.data, bounds, start, end, 64, 288), self._assignment
        for first, last, kind in found(view, what):
            if kind in self.wanted:
                yield row, view.byte(first), view.byte(last), KINDS.index(kind)  # type: ignore[arg-type]

    def _numbers(self, view: _View, what: int) -> Iterable[pii_numbers.Found]:
        where = view.text, view.at, view.end
        if what & pii_screen.QUAD and "ipv4" in self.wanted:
            yield from pii_addresses.quads(*where, self.config.ip_scope)
        if what & pii_screen.DIGITS:
            if "cn_id" in self.wanted:
                yield from pii_numbers.identities(*where)
            if "card" in self.wanted:
                yield from pii_numbers.cards(*where)
            if "phone" in self.wanted:
                yield from pii_numbers.phones(*where, self.config.phone_regions)

    def _iban(self, view: _View, what: int) -> Iterable[pii_numbers.Found]:
        return pii_words.iban(view.text, view.at, view.end)

    def _tokens(self, view: _View, what: int) -> Iterable[pii_numbers.Found]:
        return pii_words.tokens(view.text)

    def _colons(self, view: _View, what: int) -> Iterable[pii_numbers.Found]:
        return pii_addresses.colons(view.text, view.at, view.end, self.config.ip_scope)

    def _at(self, view: _View, what: int) -> Iterable[pii_numbers.Found]:
        if "email" in self.wanted:
            yield from pii_words.email(view.text, view.at)
        if "secret" in self.wanted:
            yield from pii_words.userinfo(view.text, view.at)

    def _assignment(self, view: _View, what: int) -> Iterable[pii_numbers.Found]:
        return pii_words.assignment(view.text, view.at)


def _settle(found: Iterable[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Sort, and join what overlaps, so that nothing of either stays; the kind is the first of theirs in KINDS."""
    joined: list[tuple[int, int, int, int]] = []
    for span in sorted(found):
        if joined and joined[-1][0] == span[0] and span[1] < joined[-1][2]:
            row, start, end, kind = joined[-1]
            joined[-1] = row, start, max(end, span[2]), min(kind, span[3])
        else:
            joined.append(span)
    return joined


def counts(spans: Spans, rows: int) -> dict[str, np.ndarray]:
    """Count what was found in each of `rows` texts: SIGNALS → float64[rows]; DOCS says what each is."""
    table = np.zeros((len(KINDS), rows), np.float64)
    np.add.at(table, (spans.kinds, spans.rows), 1.0)
    return dict(zip(SIGNALS, table, strict=True))


def dropped(spans: Spans, rows: int, config: PiiConfig) -> np.ndarray:
    """Mark the texts that hold something of a kind whose mode is "drop": bool[rows]."""
    marked = np.zeros(rows, np.bool_)
    marked[spans.rows[_of_mode(spans, config, "drop")]] = True
    return marked


def _of_mode(spans: Spans, config: PiiConfig, *modes: Mode) -> np.ndarray:
    return np.array([config.of(kind) in modes for kind in KINDS])[spans.kinds]


def read_key(config: PiiConfig) -> bytes:
    """Read the key of mode "hash" from the environment; b"" where no kind has that mode,
    ValueError where it is unset."""
    if not any(config.of(kind) == "hash" for kind in KINDS):
        return b""
    key = os.environ.get(config.key_variable, "").encode()
    if not key:
        raise ValueError(f"mode hash needs a key in the environment variable {config.key_variable}; it is not set")
    return key


def apply(texts: pa.Array, spans: Spans, config: PiiConfig, key: bytes = b"") -> pa.Array:
    """Replace what was found, by the mode of its kind; other bytes stay. Returns an array of the same type.

    "redact": [EMAIL]. "hash": [EMAIL:…], 16 letters from a to p, which are blake2b of the kind and the normalised value
    (RFC 7693, keyed, 64 bits). "drop", "report": nothing is replaced. texts: the very array that `find` got.
    ValueError where a kind is hashed without a key.
    """
    chosen = np.flatnonzero(_of_mode(spans, config, "redact", "hash"))
    if not len(chosen):
        return texts
    if not key and np.any(_of_mode(spans, config, "hash")):
        raise ValueError("mode hash needs a key: without one, a value is found by hashing all that it can be")
    array, offsets = utf8(texts)
    data, at = memoryview(array.data), int(offsets[0])
    parts: list[memoryview | bytes] = []
    lengths = np.diff(offsets)
    for row, start, end, index in zip(*(column[chosen].tolist() for column in spans), strict=True):
        first = int(offsets[row]) + start
        last = int(offsets[row]) + end
        placeholder = _placeholder(KINDS[index], bytes(data[first:last]), config, key)
        parts += [data[at:first], placeholder]
        at = last
        lengths[row] += len(placeholder) - (end - start)
    parts.append(data[at : int(offsets[-1])])
    width = np.int32 if pa.types.is_string(texts.type) else np.int64
    ends = np.concatenate([[0], np.cumsum(lengths)])
    if ends[-1] > np.iinfo(width).max:
        raise ValueError(f"{ends[-1]} bytes of text are too many for an array of {texts.type}")
    valid = texts.is_valid().buffers()[1] if texts.null_count else None
    buffers = [valid, pa.py_buffer(ends.astype(width)), pa.py_buffer(b"".join(parts))]
    return pa.Array.from_buffers(texts.type, len(texts), buffers)


def _placeholder(kind: Kind, value: bytes, config: PiiConfig, key: bytes) -> bytes:
    if config.of(kind) == "redact":
        return f"[{kind.upper()}]".encode()
    normal = normalise(kind, value.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(normal, digest_size=_DIGEST_BYTES, key=hashlib.sha512(key).digest(), person=kind.encode())
    return f"[{kind.upper()}:{digest.hexdigest().translate(_HEX_TO_LETTERS)}]".encode()


def normalise(kind: Kind, value: str) -> str:
    """Give the form that all spellings of a value share: width, case, separators and country codes do not count.

    Chinese mobile numbers get their 86 and North American ones their 1; other numbers without a country code stay so.
    """
    value = pii_numbers.fold(value)
    if kind == "email":
        return value.lower()
    if kind in ("ipv4", "ipv6"):
        try:
            return ipaddress.ip_address(value).compressed
        except ValueError:  # joined with what overlapped it
            return value
    if kind == "phone":
        digits = re.sub(r"\D", "", re.split(r"(?i)\D{0,3}(?:x|ext|转|轉)", value)[0].replace("(0)", ""))
        digits = digits.removeprefix("00") if value.startswith(("00", "(00")) else digits
        if re.fullmatch(r"1[3-9]\d{9}", digits):
            return "86" + digits
        return "1" + digits if re.fullmatch(r"[2-9]\d{9}", digits) and not value.startswith("+") else digits
    if kind in ("card", "cn_id", "iban"):
        return re.sub(r"[ -]", "", value).upper()
    return value
