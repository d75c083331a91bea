"""Read and write the part of SentencePiece's ModelProto that Gristmill edits: the pieces and their scores.

The package's own protobuf module needs a newer protobuf runtime than Beam allows (gencode 7 against runtime 6), and
the wire format of three fields is simpler than a second runtime.
Source: sentencepiece/src/sentencepiece_model.proto and https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_PIECES, _TRAINER_SPEC = 1, 2  # fields of ModelProto
_MODEL_TYPE, _TRAINER_VOCAB_SIZE = 3, 4  # fields of TrainerSpec
_BPE = 2  # of TrainerSpec.ModelType; unigram, 1, is the default
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


@dataclass(frozen=True)
class Piece:
    """One vocabulary entry: its text, its score (a float32 value) and its type (NORMAL, BYTE, …)."""

    text: str
    score: float
    type: int


@dataclass(frozen=True)
class Model:
    """A SentencePiece model: its pieces in id order, and every other field of the proto as it was."""

    pieces: tuple[Piece, ...]
    rest: bytes

    @property
    def is_bpe(self) -> bool:
        """Whether the pieces are those of byte-pair encoding (else: of a unigram model)."""
        specs = [
            value for number, _, value in _fields(self.rest) if number == _TRAINER_SPEC and isinstance(value, bytes)
        ]
        return any(number == _MODEL_TYPE and value == _BPE for spec in specs for number, _, value in _fields(spec))

    def to_bytes(self) -> bytes:
        """Serialise: pieces first, as the protobuf compiler does, and the trainer's vocab_size set to their number."""
        out = bytearray()
        for piece in self.pieces:
            body = _tag(1, _BYTES) + _sized(piece.text.encode()) + _tag(2, _FIXED32) + struct.pack("<f", piece.score)
            if piece.type != NORMAL:
                body += _tag(3, _VARINT) + _varint(piece.type)
            out += _tag(_PIECES, _BYTES) + _sized(body)
        for number, wire, value in _fields(self.rest):
            if number == _TRAINER_SPEC and isinstance(value, bytes):
                value = _with_vocab_size(value, len(self.pieces))
            out += _field(number, wire, value)
        return bytes(out)


def parse(raw: bytes) -> Model:
    """Read a serialised ModelProto; ValueError where it is not one."""
    pieces, rest = [], bytearray()
    for number, wire, value in _fields(raw):
        if number == _PIECES and isinstance(value, bytes):
            pieces.append(_parse_piece(value))
        else:
            rest += _field(number, wire, value)
    return Model(tuple(pieces), bytes(rest))


def _parse_piece(raw: bytes) -> Piece:
    text, score, kind = "", 0.0, NORMAL
    for number, _, value in _fields(raw):
        if number == 1 and isinstance(value, bytes):
            text = value.decode()
        elif number == 2 and isinstance(value, bytes):
            score = struct.unpack("<f", value)[0]
        elif number == 3 and isinstance(value, int):
            kind = value
    return Piece(text, score, kind)


def _with_vocab_size(spec: bytes, size: int) -> bytes:
    out = bytearray()
    for number, wire, value in _fields(spec):
        out += _field(number, wire, size if number == _TRAINER_VOCAB_SIZE else value)
    return bytes(out)


def _fields(raw: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Yield (field number, wire type, value) of one message; fixed-width values stay bytes."""
    at = 0
    while at < len(raw):
        key, at = _read_varint(raw, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            number_value, at = _read_varint(raw, at)
            yield number, wire, number_value
            continue
        if wire == _BYTES:
            size, at = _read_varint(raw, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"not a SentencePiece model: wire type {wire} at byte {at}")
        if at + size > len(raw):
            raise ValueError(f"not a SentencePiece model: a field of {size} bytes at byte {at} of {len(raw)}")
        yield number, wire, raw[at : at + size]
        at += size


def _read_varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(raw) or shift > 63:
            raise ValueError(f"not a SentencePiece model: broken varint at byte {at}")
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _tag(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _sized(raw: bytes) -> bytes:
    return _varint(len(raw)) + raw


def _field(number: int, wire: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _tag(number, wire) + _varint(value)
    return _tag(number, wire) + (_sized(value) if wire == _BYTES else value)
