"""Find where the compressed data of a JPEG's scans end, so that nothing can hide behind them (ITU-T T.81, F.2 and G.2).

Huffman codes are followed without making coefficients of them: what is needed is only how many bits they take.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from pipelines.images.streams import MARKER

_EOI, _SOS, _DHT, _DRI = 0xD9, 0xDA, 0xC4, 0xDD
_SEQUENTIAL, _DC_FIRST, _DC_REFINE, _AC_FIRST, _AC_REFINE = range(5)
_HUFFMAN_FRAMES, _PROGRESSIVE = (0xC0, 0xC1, 0xC2), 0xC2
_ACCUMULATED = (1 << 56) - 1
_QUICK = 9  # bits of the codes that are found at once
_BEYOND = 1 << _QUICK  # places in the row of a table
_PLACE = _BEYOND + 17
_SYMBOLS = _PLACE + 17
_AHEAD = 11  # bits of the coefficients that are passed over at once
_PASSED = _SYMBOLS + 256
_ROW = _PASSED + (1 << _AHEAD)
_READ_ONLY = numba.types.Array(numba.uint8, 1, "C", readonly=True)
# Signatures: compiled, or taken from numba's cache, when this is imported, as in `resample`.
_PEEKED = numba.types.UniTuple(numba.int64, 4)


def trim_jpeg(data: bytes) -> bytes | None:
    """Cut off what stands between the end of each scan's compressed data and the next marker.

    data: of `walk_jpeg`. None where that cannot be told: codes that are none, data that end early, restart markers in
    the wrong places, arithmetic coding. (Bits that fill up a byte stay as they are.)
    """
    try:
        return _Jpeg(data).trimmed()
    except (IndexError, KeyError, ValueError, ZeroDivisionError):  # a header that lacks or contradicts something
        return None


class _Jpeg:
    """What the segments of a JPEG have said so far. components: horizontal and vertical factor, by name."""

    def __init__(self, data: bytes) -> None:
        self.data, self.bytes = data, np.frombuffer(data, np.uint8)
        self.tables: dict[int, bytes] = {}  # DC tables are 0 to 3, AC tables 4 to 7
        self.components: dict[int, tuple[int, int]] = {}
        self.coefficients: dict[int, npt.NDArray[np.uint64]] = {}  # of each block: which are not zero, bit by bit
        self.width = self.height = self.restart = 0
        self.progressive = False

    def trimmed(self) -> bytes | None:
        data, kept, at = self.data, [self.data[:2]], 2
        while at < len(data) and data[at + 1] != _EOI:
            code, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            kept.append(data[at:end])
            body = data[at + 4 : end]
            if code == _SOS:
                stop = self._scan(body, end)
                if stop < 0:
                    return None
                kept.append(data[end:stop])
                following = MARKER.search(data, stop)
                end = following.start() if following else len(data)
            elif code == _DHT:
                self._take_tables(body)
            elif code == _DRI:
                self.restart = int.from_bytes(body, "big")
            elif 0xC0 <= code <= 0xCF:
                if code not in _HUFFMAN_FRAMES:
                    return None
                self._take_frame(body, code == _PROGRESSIVE)
            at = end
        return b"".join(kept) + b"\xff\xd9"

    def _take_frame(self, body: bytes, progressive: bool) -> None:
        self.height, self.width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
        self.progressive = progressive
        for at in range(6, 6 + 3 * body[5], 3):
            self.components[body[at]] = body[at + 1] >> 4, body[at + 1] & 15

    def _take_tables(self, body: bytes) -> None:
        while body:
            end = 17 + sum(body[1:17])
            if body[0] & 15 > 3 or body[0] >> 4 > 1 or not _is_table(body[1:end]):
                raise ValueError("no Huffman table")
            self.tables[(body[0] >> 4) * 4 + (body[0] & 15)] = body[1:end]
            body = body[end:]

    def _blocks(self, name: int) -> int:
        """Blocks of a component where it is alone in its scan (A.2.2)."""
        across, down = (max(one[axis] for one in self.components.values()) for axis in (0, 1))
        horizontal, vertical = self.components[name]
        wide, high = _up(self.width * horizontal, across), _up(self.height * vertical, down)
        return _up(wide, 8) * _up(high, 8)

    def _scan(self, body: bytes, start: int) -> int:
        """Where the data of a scan end that start here; negative where they do not."""
        names = [body[1 + 2 * at] for at in range(body[0])]
        first, last, step = body[1 + 2 * len(names) : 4 + 2 * len(names)]
        blocks = np.empty((len(names), 3), np.int64)  # in each unit, and the tables for their DC and AC coefficients
        used: list[bytes] = []
        for row, name in enumerate(names):
            which, (wide, high) = body[2 + 2 * row], self.components[name]
            tables = (self.tables.get((which >> 4) & 3, b""), self.tables.get(4 + (which & 3), b""))
            used += [one for one in tables if one not in used]
            blocks[row] = wide * high, *(used.index(one) for one in tables)
        if len(names) == 1:
            units, blocks[0, 0] = self._blocks(names[0]), 1
        else:
            across, down = (8 * max(one[axis] for one in self.components.values()) for axis in (0, 1))
            units = _up(self.width, across) * _up(self.height, down)
        kind, known = _SEQUENTIAL, np.empty(0, np.uint64)
        if self.progressive and first == 0:
            kind = _DC_REFINE if step >> 4 else _DC_FIRST
        elif self.progressive:
            kind = _AC_REFINE if step >> 4 else _AC_FIRST
            if len(names) > 1 or last > 63:
                return -1
            known = self.coefficients.setdefault(names[0], np.zeros(units, np.uint64))
        return int(
            _follow(self.bytes, start, kind, first, last, units, self.restart, blocks, _lookup(tuple(used)), known)
        )


@functools.lru_cache(maxsize=64)
def _is_table(table: bytes) -> bool:
    return _filled(table, np.empty(_ROW, np.int32))


@functools.lru_cache(maxsize=16)  # most files have the tables of Annex K, or those of one encoder
def _lookup(tables: tuple[bytes, ...]) -> npt.NDArray[np.int32]:
    """What to find the codes of some tables by, see `_fill_table`; no codes where there is no table."""
    found = np.zeros((len(tables), _ROW), np.int32)
    for row, table in zip(found, tables, strict=True):
        if table:
            _filled(table, row)
            if max(table[16:], default=0) > 15:  # else of DC, or of next to nothing
                _look_ahead(row)
    return found


def _filled(table: bytes, out: npt.NDArray[np.int32]) -> bool:
    return bool(_fill_table(out, np.frombuffer(table[:16], np.uint8), np.frombuffer(table[16:], np.uint8)))


def _up(number: int, divisor: int) -> int:
    return -(-number // divisor)


@numba.njit(numba.boolean(numba.int32[::1], _READ_ONLY, _READ_ONLY), nogil=True, cache=True)
def _fill_table(row: Any, counts: Any, symbols: Any) -> bool:
    """Make of a table's code lengths (Annex C) what to find them by; tell whether it is one.

    A row is small, so that it stays in the processor's nearest cache: for the next _QUICK bits, length of the code << 8
    | its symbol, 0 where it is longer; then for each greater length the first 16 bits that are beyond its codes, and
    what to add to a code for the place of its symbol; then the symbols. What `_look_ahead` adds comes behind.
    """
    row[:] = 0
    code, at = 0, 0
    for length in range(1, 17):
        first = at - code
        for _ in range(counts[length - 1]):
            if at >= len(symbols) or code >= 1 << length or at >= 256:
                return False
            if length <= _QUICK:
                shift = _QUICK - length
                row[code << shift : (code + 1) << shift] = length << 8 | symbols[at]
            row[_SYMBOLS + at] = symbols[at]
            code, at = code + 1, at + 1
        if length > _QUICK:
            row[_BEYOND + length] = code << (16 - length)
            row[_PLACE + length] = first
        code <<= 1
    return True


@numba.njit(numba.void(numba.int32[::1]), nogil=True, cache=True)
def _look_ahead(row: Any) -> None:
    """Add to an AC table what whole coefficients _AHEAD bits hold: places in the block << 8 | bits; 0 for none."""
    for bits in range(1 << _AHEAD):
        ahead, taken, places = bits << (16 - _AHEAD), 0, 0
        while True:
            entry = int(row[(ahead << taken & 0xFFFF) >> (16 - _QUICK)])
            length, zeros = (entry >> 8) + (entry & 15), entry >> 4 & 15
            ends = entry & 15 == 0 and zeros < 15  # the block, or this is no code
            if ends or taken + length > _AHEAD:
                break
            taken, places = taken + length, places + zeros + 1
        row[_PASSED + bits] = places << 8 | taken


@numba.njit(numba.int64(numba.int32[::1], numba.int64), nogil=True, cache=True)
def _code(row: Any, bits: int) -> int:
    """Length << 8 | symbol of the code that 16 bits begin with; 0 where they begin with none."""
    entry = int(row[bits >> (16 - _QUICK)])
    if entry > 0:
        return entry
    for length in range(_QUICK + 1, 17):
        if bits < row[_BEYOND + length]:
            return length << 8 | int(row[_SYMBOLS + row[_PLACE + length] + (bits >> (16 - length))])
    return 0


@numba.njit(_PEEKED(_READ_ONLY, numba.int64, numba.int64, numba.int64, numba.int64), nogil=True, cache=True)
def _fill(data: Any, at: int, held: int, bits: int, lacking: int) -> tuple[int, int, int, int]:
    """Hold at least 48 bits; from the first marker on they are zeros, counted as lacking."""
    while bits <= 48:
        value: Any = 0
        if at < len(data) and data[at] != 0xFF:
            value = np.int64(data[at])
            at += 1
        elif at + 1 < len(data) and data[at + 1] == 0:
            value = 0xFF
            at += 2
        else:
            lacking += 8
        held, bits = ((held << 8) | value) & _ACCUMULATED, bits + 8
    return at, held, bits, lacking


@numba.njit(numba.int64(_READ_ONLY, numba.int64, numba.int64), nogil=True, cache=True)
def _give_back(data: Any, at: int, count: int) -> int:
    """Step back over bytes that were read too far."""
    for _ in range(count):
        at -= 2 if data[at - 1] == 0 and data[at - 2] == 0xFF else 1
    return at


_TYPES = [_READ_ONLY, *[numba.int64] * 6, numba.int64[:, ::1], numba.int32[:, ::1], numba.uint64[::1]]


@numba.njit(numba.int64(*_TYPES), nogil=True, cache=True)
def _follow(
    data: Any,
    at: int,
    kind: int,
    first: int,
    last: int,
    units: int,
    restart: int,
    blocks: Any,
    tables: Any,
    known: Any,
) -> int:
    """Follow the codes of one scan; where they end, or -1. known: bits of coefficients that are not zero, changed."""
    held, bits, lacking, run = 0, 0, 0, 0
    entry: Any
    for unit in range(units):
        if bits < lacking:
            return -1
        if restart > 0 and unit > 0 and unit % restart == 0:
            at = _give_back(data, at, (bits - lacking) // 8)
            if at + 2 > len(data) or data[at] != 0xFF or data[at + 1] != 0xD0 + (unit // restart - 1) % 8:
                return -1
            at, held, bits, lacking, run = at + 2, 0, 0, 0, 0
        for row in range(len(blocks)):
            dc, ac = blocks[row, 1], blocks[row, 2]
            for _ in range(blocks[row, 0]):
                if kind <= _DC_REFINE:
                    at, held, bits, lacking = _fill(data, at, held, bits, lacking)
                    if kind == _DC_REFINE:
                        bits -= 1
                        continue
                    entry = _code(tables[dc], (held >> (bits - 16)) & 0xFFFF)
                    if entry == 0 or entry & 255 > 15:
                        return -1
                    bits -= (entry >> 8) + (entry & 255)
                    if kind == _DC_FIRST:
                        continue
                index = 1 if kind == _SEQUENTIAL else first
                end = 63 if kind == _SEQUENTIAL else last
                bit_map = known[unit] if kind >= _AC_FIRST else np.uint64(0)
                if run == 0:
                    while index <= end:
                        at, held, bits, lacking = _fill(data, at, held, bits, lacking)
                        if kind == _SEQUENTIAL:
                            passed = int(tables[ac, _PASSED + ((held >> (bits - _AHEAD)) & ((1 << _AHEAD) - 1))])
                            if passed > 0 and index + (passed >> 8) <= 64:
                                bits -= passed & 255
                                index += passed >> 8
                                continue
                        entry = _code(tables[ac], (held >> (bits - 16)) & 0xFFFF)
                        if entry == 0:
                            return -1
                        zeros, size = (entry >> 4) & 15, entry & 15
                        bits -= entry >> 8
                        if size == 0 and zeros < 15:
                            run = 1
                            if kind != _SEQUENTIAL:
                                bits -= zeros
                                run = (1 << zeros) + ((held >> bits) & ((1 << zeros) - 1))
                            break
                        bits -= size
                        if kind != _AC_REFINE:
                            index += zeros
                        else:
                            while index <= end:
                                if bit_map >> np.uint64(index) & np.uint64(1):
                                    if bits == 0:
                                        at, held, bits, lacking = _fill(data, at, held, bits, lacking)
                                    bits -= 1
                                elif zeros == 0:
                                    break
                                else:
                                    zeros -= 1
                                index += 1
                        if index > 63:
                            return -1
                        if size and kind >= _AC_FIRST:
                            known[unit] |= np.uint64(1) << np.uint64(index)
                        index += 1
                if run > 0:
                    if kind == _AC_REFINE:
                        while index <= end:
                            if bit_map >> np.uint64(index) & np.uint64(1):
                                if bits == 0:
                                    at, held, bits, lacking = _fill(data, at, held, bits, lacking)
                                bits -= 1
                            index += 1
                    run -= 1
    if bits < lacking:
        return -1
    return _give_back(data, at, (bits - lacking) // 8)
