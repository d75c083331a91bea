"""Train SentencePiece models, and encode Arrow arrays of texts with them.

The texts are taken as `clean` left them: the model changes nothing but " " into "▁" and adds no space of its own, so
decode(encode(text)) == text (but "▁" itself, U+2581, comes back as a space) and ids do not depend on what stands
before. Kudo and Richardson, "SentencePiece", EMNLP 2018; unigram: Kudo, ACL 2018; BPE: Sennrich et al., ACL 2016.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sentencepiece

from pipelines.text import model_proto, spans
from pipelines.text.model_proto import BYTE, NORMAL, Piece
from pipelines.text.unicode import SCRIPTS, decode, tables, utf8
from schemas.packed import SPECIAL_TOKENS, token_type

SPACE = "▁"
# Learned pieces hold one "▁" at most, at their beginning, and no other white space. These are added to every model, so
# that line ends and indentation cost few tokens. No piece crosses from white space other than one "▁" to anything else.
WHITESPACE_PIECES = ("\n", "\n\n", "\t", *(SPACE * n for n in (2, 3, 4, 5, 6, 7, 8, 16)))
UNIGRAM_WHITESPACE_SCORE = -4.0  # one piece for a run always beats several, and never a word's own "▁"
# Unigram scores are multiples of this, so that sums of 8 KiB of pieces are exact in float32 (SentencePiece) and float64
# (tokenizers) alike, and ties break alike: 8,192 pieces × 16 × 128 = 2^24.
SCORE_GRID = 1 / 128
SEGMENT_BYTES = 8192
# A run of this many bytes without a space or a line end is cut where no piece needs to end.
LONGEST_RUN = 65_536
# The order in which EM adds its float32 counts depends on the number of threads, so this is a constant, not a setting:
# measured, 1, 2 and 16 threads give three different models, and 16 twice the same on any number of cores.
TRAINING_THREADS = 16
# Seeds per piece of the vocabulary, and EM steps per round. SentencePiece's own 1,000,000 and 2 took 2.6 times as long
# on 11 MB of English and Chinese, for 0.4 % fewer bytes per token on held-out text.
_SEEDS, _EM_STEPS = 12, 1
MAX_LINE = 4096  # characters of a training line; SentencePiece silently skips lines above its own, higher limit
_UNTRAINABLE = "\t\n\u2581\u2585"  # separators, and SentencePiece's own marks for spaces and unknown characters
_GROUP = 64  # distinct words per call; measured, 32 to 512 differ little, 1 costs three times as much
_NAMED = (
    "pad",
    "unk",
    "bos",
    "eos",
)  # what SentencePiece calls the first special tokens; the others are control symbols
_ASCII = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True)
class TrainConfig:
    """How a vocabulary is learned.

    model: 'unigram' or 'bpe'. vocab_size: upper bound, specials, bytes and white space included; a small corpus gives
    fewer. split_digits: every digit a token. character_coverage: by script (pipelines.text.unicode) or 'default', the
    share of the script's characters in the sample that get a token; the others become bytes. max_alphabet: share of
    the vocabulary that single characters may take; beyond it the rarest become bytes.
    """

    model: str = "unigram"
    vocab_size: int = 8192
    split_digits: bool = False
    character_coverage: dict[str, float] = field(default_factory=lambda: {"default": 0.9999, "han": 0.9995})
    max_alphabet: float = 0.5

    def __post_init__(self) -> None:
        if self.model not in ("unigram", "bpe"):
            raise ValueError(f"model is {self.model!r}; expected 'unigram' or 'bpe'")
        for name, share in self.character_coverage.items():
            if name not in (*SCRIPTS, "default"):
                raise ValueError(
                    f"character_coverage names {name!r}; expected 'default' or one of {', '.join(SCRIPTS)}"
                )
            if not 0 < share <= 1:
                raise ValueError(f"character_coverage of {name!r} is {share}; expected more than 0 and at most 1")
        if not 0 < self.max_alphabet < 1:
            raise ValueError(f"max_alphabet is {self.max_alphabet}; expected a share between 0 and 1")
        fixed = len(SPECIAL_TOKENS) + 256 + len(WHITESPACE_PIECES) + len(_ASCII) + 1
        if self.vocab_size < 2 * fixed:
            raise ValueError(f"vocab_size is {self.vocab_size}; expected at least {2 * fixed}")


def alphabet(texts: pa.Array, config: TrainConfig) -> np.ndarray:
    """Choose the characters that get a token: their code points, ascending (uint32).

    Per script the most frequent characters up to its coverage; ties break by code point. Printable ASCII is always in,
    white space never. Where that is more than max_alphabet of the vocabulary, the rarest of all are left out.
    """
    data, offsets = utf8(texts)
    counts = np.zeros(0x110000, np.int64)
    _count_characters(data, offsets, counts)
    counts[[ord(c) for c in _UNTRAINABLE + " "]] = 0
    seen = np.flatnonzero(counts)
    order = seen[np.lexsort((seen, -counts[seen]))]
    script = tables().scripts[order]
    chosen = []
    for number, name in enumerate(SCRIPTS):
        mine = order[script == number]
        if len(mine):
            share = config.character_coverage.get(name, config.character_coverage.get("default", 1.0))
            total = np.cumsum(counts[mine])
            chosen.append(mine[: 1 + np.searchsorted(total, share * total[-1] - 1e-6 * share)])
    both = np.concatenate([*chosen, np.array([], np.int64)])
    both = both[np.lexsort((both, -counts[both]))][: int(config.max_alphabet * config.vocab_size)]
    return np.union1d(both, [ord(c) for c in _ASCII]).astype(np.uint32)


@numba.njit(nogil=True, cache=True)
def _count_characters(data: np.ndarray, offsets: np.ndarray, counts: np.ndarray) -> None:
    at, end = offsets[0], offsets[-1]
    while at < end:
        code, width = decode(data, at, end)
        counts[code] += 1
        at += width


def training_lines(texts: Iterable[str], letters: np.ndarray) -> Iterator[str]:
    """Cut texts into lines for the trainer: at white space other than " ", and at characters not in `letters`."""
    known = set(letters.tolist()) | {ord(" ")}
    table: dict[int, str] = {}
    for text in texts:
        table |= dict.fromkeys({ord(c) for c in set(text)} - known - table.keys(), "\n")
        for line in text.translate(table).split("\n"):
            yield from (line[at : at + MAX_LINE] for at in range(0, len(line), MAX_LINE))


def train(texts: pa.Array, config: TrainConfig) -> bytes:
    """Train on texts, in their order, and return the model's bytes (a ModelProto without paths).

    The same texts and configuration give the same bytes, on any number of cores. ValueError where there is no text.
    """
    letters = alphabet(texts, config)
    lines = training_lines((text.as_py() for text in texts if text.is_valid), letters)
    writer = io.BytesIO()
    ids: dict[str, Any] = {f"{name}_id": number for number, name in enumerate(_NAMED)}
    ids |= {f"{name}_piece": piece for name, piece in zip(_NAMED, SPECIAL_TOKENS, strict=False)}
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines,
            model_writer=writer,
            model_type=config.model,
            vocab_size=config.vocab_size - len(WHITESPACE_PIECES),
            hard_vocab_limit=False,
            character_coverage=1.0,  # `letters` has decided
            required_chars=SPACE + "".join(map(chr, letters)),
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            byte_fallback=True,
            split_digits=config.split_digits,
            input_sentence_size=0,
            max_sentence_length=16 * MAX_LINE,
            seed_sentencepiece_size=_SEEDS * config.vocab_size,
            num_sub_iterations=_EM_STEPS,
            num_threads=TRAINING_THREADS,
            control_symbols=list(SPECIAL_TOKENS[len(_NAMED) :]),
            minloglevel=2,
            **ids,
        )
    except RuntimeError as error:
        if "sentences_.empty()" in str(error):
            raise ValueError("no text to train a tokenizer on") from error
        raise
    return finish(model_proto.parse(writer.getvalue()), config.model).to_bytes()


def finish(model: model_proto.Model, kind: str) -> model_proto.Model:
    """Put unigram scores on SCORE_GRID, and add WHITESPACE_PIECES after the bytes.

    In BPE a score is a rank: white space comes after all learned merges, and longer runs before shorter ones, so that a
    run is read greedily.
    """
    first = 1 + max(i for i, piece in enumerate(model.pieces) if piece.type == BYTE)
    if kind == "unigram":
        learned = [replace(p, score=round(p.score / SCORE_GRID) * SCORE_GRID) for p in model.pieces[first:]]
        scores = [UNIGRAM_WHITESPACE_SCORE] * len(WHITESPACE_PIECES)
    else:
        learned = list(model.pieces[first:])
        lowest = min(piece.score for piece in learned)
        by_length = sorted(WHITESPACE_PIECES, key=len, reverse=True)
        scores = [lowest - 1 - by_length.index(text) for text in WHITESPACE_PIECES]
    added = [Piece(text, score, NORMAL) for text, score in zip(WHITESPACE_PIECES, scores, strict=True)]
    return replace(model, pieces=(*model.pieces[:first], *added, *learned))


@dataclass(frozen=True)
class Encoded:
    """Tokens of several texts, end to end.

    ids: uint16 or uint32 (schemas.packed.token_type). offsets: int64, text i is ids[offsets[i]:offsets[i + 1]].
    """

    ids: np.ndarray
    offsets: np.ndarray


class Tokenizer:
    """A trained model, ready to encode. Thread-safe; pickles as the model's bytes."""

    def __init__(self, model: bytes) -> None:
        self.model = model
        parsed = model_proto.parse(model)
        self.pieces, self._kind = parsed.pieces, "bpe" if parsed.is_bpe else "unigram"
        self._line_feed = next(i for i, piece in enumerate(self.pieces) if piece.text == "\n")
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self._dtype = np.dtype(str(token_type(len(self.pieces))))
        self.piece_bytes = np.array([_text_bytes(piece) for piece in self.pieces], np.uint8)

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[bytes]]:
        return Tokenizer, (self.model,)

    @property
    def vocab_size(self) -> int:
        """Number of pieces, special ones included."""
        return len(self.pieces)

    def encode(self, texts: pa.Array) -> Encoded:
        """Encode every text; literal '[MASK]' and the like in a text become ordinary tokens, never special ids.

        `texts` must have gone through `plain_spaces`, so that the tokens' bytes are the text's.
        """
        data, offsets = utf8(texts)
        if self._kind == "unigram":
            edges, first = spans.segments(data, offsets, SEGMENT_BYTES, LONGEST_RUN)
            ids, starts = self._encode_spans(data, edges[:-1], edges[1:])
            return Encoded(ids, starts[first])
        # SentencePiece's BPE costs 4 to 5 times its unigram in spaced scripts: each distinct word is encoded once.
        edges, first = spans.words(data, offsets, LONGEST_RUN)
        distinct, numbers = spans.unique(data, edges)
        ids, begins, ends = self._encode_distinct(data, edges[distinct], edges[distinct + 1])
        places = np.zeros(len(edges), np.int64)
        np.cumsum((ends - begins)[numbers], out=places[1:])
        return Encoded(spans.gather(ids, begins, ends, numbers, int(places[-1])), places[first])

    def _encode_spans(self, data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Encode data[starts[j]:ends[j]]: ids end to end, and where each span's begin (one more than spans)."""
        return self._encode_raw(_slices(data, starts, ends))

    def _encode_raw(self, raw: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        tokens = self._processor.encode(raw, return_type="numpy", num_threads=1)
        offsets = np.zeros(len(tokens) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, tokens), np.int64, len(tokens)), out=offsets[1:])
        return np.concatenate([np.empty(0, np.int32), *tokens]).astype(self._dtype), offsets

    def _encode_distinct(
        self, data: np.ndarray, starts: np.ndarray, ends: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Encode many short spans: (ids, begins, ends), span j is ids[begins[j]:ends[j]].

        A call for each would cost more than its work, so they go in groups, each span ended by a line feed, which is a
        token by itself where neither side is one. Runs of line feeds themselves are few and go alone.
        """
        feeds = data[starts] == ord("\n")
        words, alone = np.flatnonzero(~feeds), np.flatnonzero(feeds)
        raw = [span + b"\n" for span in _slices(data, starts[words], ends[words])]
        groups = [b"".join(raw[at : at + _GROUP]) for at in range(0, len(raw), _GROUP)]
        ids, offsets = self._encode_raw(groups + _slices(data, starts[alone], ends[alone]))
        begins, stops = np.empty(len(starts), np.int64), np.empty(len(starts), np.int64)
        stops[words] = np.flatnonzero(ids[: offsets[len(groups)]] == self._line_feed)
        begins[words] = np.concatenate([[0], stops[words][:-1] + 1])[: len(words)]
        begins[alone], stops[alone] = offsets[len(groups) : -1], offsets[len(groups) + 1 :]
        return ids, begins, stops

    def decode(self, ids: np.ndarray) -> str:
        """Decode ids to text; special tokens give nothing, bytes that are not UTF-8 give U+FFFD."""
        return self._processor.decode(ids.tolist())

    def byte_offsets(self, encoded: Encoded) -> np.ndarray:
        """Where each token begins, in bytes of all texts end to end, and where the last ends: int64, len(ids) + 1."""
        out = np.zeros(len(encoded.ids) + 1, np.int64)
        np.cumsum(self.piece_bytes[encoded.ids], out=out[1:])
        return out


def _slices(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> list[bytes]:
    base = int(starts.min()) if len(starts) else 0
    raw = data[base : int(ends.max()) if len(ends) else 0].tobytes()
    return [raw[a:b] for a, b in zip((starts - base).tolist(), (ends - base).tolist(), strict=True)]


def plain_spaces(texts: pa.Array) -> pa.Array:
    """Replace "▁" (U+2581) by a space, as SentencePiece reads it."""
    if pc.any(pc.match_substring(texts, SPACE)).as_py():
        return pc.replace_substring(texts, SPACE, " ")
    return texts


def _text_bytes(piece: Piece) -> int:
    if piece.type == NORMAL:
        return len(piece.text.replace(SPACE, " ").encode())
    return int(piece.type == BYTE)
