"""The language of a text, the shares of its scripts, and whether its Chinese is simplified. Over whole Arrow arrays.

The script that leads decides where one language is written in it (Hangul, Thai, Greek, …), and so it does for Han:
with kana it is Japanese, without it is Chinese. For other scripts the naive Bayes model that ships inside py3langid
(139 languages, BSD) decides, run here by a compiled kernel over the whole array; `docs/language.md` says why this one.
Of a long text a sample is looked at: half of `max_chars` from its beginning, half from its middle.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from pipelines.text.line_hashes import WEIGHTS
from pipelines.text.unicode import SCRIPTS, Class, Flag, decode, tables, utf8

VARIANTS_PATH = Path(__file__).parent / "data" / "han_variants.npz"

UNKNOWN = "und"  # ISO 639-2: undetermined; py3langid also knows zxx, no linguistic content
KANA_SHARE = 0.15  # of kana and Han letters, by weight, from which on a text is Japanese; see docs/language.md
# Scripts in which one language of today is written, or all but one of them are rare.
OF_SCRIPT = {
    "greek": "el", "hangul": "ko", "hebrew": "he", "gurmukhi": "pa", "gujarati": "gu", "tamil": "ta", "telugu": "te",
    "kannada": "kn", "malayalam": "ml", "sinhala": "si", "thai": "th", "lao": "lo", "khmer": "km", "myanmar": "my",
    "tibetan": "bo", "georgian": "ka", "armenian": "hy", "ethiopic": "am", "bopomofo": "zh",
}  # fmt: skip

_LETTER, _CHARACTER, _SPACE, _UPPER = int(Class.LETTER), int(Class.CHARACTER), int(Class.SPACE), int(Flag.UPPER) << 4
_HAN, _KANA = SCRIPTS.index("han"), SCRIPTS.index("kana")
_MODEL = -1  # in place of a code: the model decides
_JUNK = "/\\@_=<>{}|#$%^*~`0123456789"  # an ASCII word with one of these is an address, code or a number, not language


@dataclass(frozen=True)
class LanguageConfig:
    """Which languages stay, and how much of a text is looked at.

    keep: codes as `languages` gives them; empty: all. min_confidence: 0…1. max_chars: characters of the sample.
    """

    keep: tuple[str, ...] = ()
    min_confidence: float = 0.0
    max_chars: int = 400

    def __post_init__(self) -> None:
        """Check the limits and the codes."""
        if self.max_chars < 2:
            raise ValueError(f"max_chars is at least 2; got {self.max_chars}")
        if self.keep and (unknown := sorted(set(self.keep) - set(codes()))):  # the model takes half a second
            raise ValueError(f"keep names {', '.join(unknown)}; known languages: {', '.join(codes())}")


class Languages(NamedTuple):
    """The language of each text: code, a string array (ISO 639-1, else 639-3), and confidence, float64 in 0…1.

    Confidence is the share of the script that leads among the letters of the sample, by weight, times the model's
    probability where the model decided. A text without letters is UNKNOWN, at 0.
    """

    code: pa.Array
    confidence: np.ndarray


def fit(code: pa.Array | np.ndarray, confidence: np.ndarray, config: LanguageConfig) -> np.ndarray:
    """How sure it is that each text is in a language to keep: its confidence, or 0 in another one; float64[n]."""
    codes = code.to_numpy(zero_copy_only=False) if isinstance(code, pa.Array) else code
    keep = list(config.keep)
    kept = np.isin(np.asarray(codes, object).astype(str), keep) if keep else np.ones(len(codes), np.bool_)
    return np.where(kept, confidence, 0.0)


def languages(texts: pa.Array, config: LanguageConfig | None = None) -> Languages:
    """Identify the language of every text of a string or large_string array; a null counts as ""."""
    data, offsets = utf8(texts)
    model, loaded = _model(), tables()
    rows = len(texts)
    found, confidence = np.full(rows, -1, np.int64), np.zeros(rows, np.float64)
    most = LanguageConfig.max_chars if config is None else config.max_chars
    args = (loaded.info, loaded.fold, WEIGHTS, _junk(), most, *model.kernel, found, confidence)
    _identify(data, offsets, *args)  # type: ignore[call-arg]
    codes = pa.array([*model.codes, UNKNOWN])
    return Languages(codes.take(pa.array(np.where(found < 0, len(codes) - 1, found))), confidence)


def stays(found: Languages, config: LanguageConfig) -> np.ndarray:
    """Say which texts are in a language to keep, at the confidence that is asked for: bool, one for each."""
    sure = found.confidence >= config.min_confidence
    if not config.keep:
        return sure
    kept = np.isin(found.code.to_numpy(zero_copy_only=False).astype(str), config.keep)
    return np.asarray(kept & sure)


@functools.cache
def codes() -> tuple[str, ...]:
    """List the codes that `languages` may give, sorted, UNKNOWN included."""
    return tuple(sorted({*_model().codes, UNKNOWN}))


def script_shares(texts: pa.Array) -> np.ndarray:
    """Measure the shares of the scripts in all letters of every text: float64[len(SCRIPTS), n]; 0 without letters.

    Letters are counted one by one (`languages` weighs them). Rows are in the order of pipelines.text.unicode.SCRIPTS.
    """
    data, offsets = utf8(texts)
    shares = np.zeros((len(SCRIPTS), len(texts)), np.float64)
    _shares(data, offsets, tables().info, shares)
    return shares


def simplified_ratio(texts: pa.Array) -> np.ndarray:
    """Measure the share of simplified letters among those of one Chinese script only: float64[n]; NaN without any.

    A letter counts as simplified where OpenCC always turns it into others when it writes traditional Chinese, and as
    traditional in the opposite case; letters of both (中, 人, but also 后 and 里) say nothing. 1: simplified, 0:
    traditional. Of Japanese, which simplified some letters the same way, it says nothing.
    """
    data, offsets = utf8(texts)
    ratio = np.full(len(texts), np.nan)
    _simplified(data, offsets, _variants(), ratio)
    return ratio


@functools.cache
def _variants() -> np.ndarray:
    """Say of every BMP code point whether it is 1, simplified only, or 2, traditional only: uint8[65536]."""
    table = np.zeros(1 << 16, np.uint8)
    with np.load(VARIANTS_PATH, allow_pickle=False) as data:
        table[data["simplified"]], table[data["traditional"]] = 1, 2
    table.flags.writeable = False
    return table


class _Model(NamedTuple):
    """Codes, and what the kernel needs: see `_identify`."""

    codes: tuple[str, ...]
    kernel: tuple[np.ndarray, ...]


@functools.cache
def _model() -> _Model:
    """Load py3langid's model: 4 MB on disk, about 100 MB in memory, half a second."""
    loaded = LanguageIdentifier.from_model_file(MODEL_FILE)
    classes = [str(name) for name in loaded.nb_classes]
    known = tuple(dict.fromkeys([*classes, *OF_SCRIPT.values()]))
    label = np.array([known.index(name) for name in classes], np.int64)
    decided = np.full(len(SCRIPTS), _MODEL, np.int64)
    for script, code in OF_SCRIPT.items():
        decided[SCRIPTS.index(script)] = known.index(code)
    decided[_HAN], decided[_KANA] = known.index("zh"), known.index("ja")
    moves = np.asarray(loaded.tk_nextmove, np.uint32).reshape(-1, 256)
    rows = np.asarray(loaded.tk_row, np.int32)
    outputs = np.asarray(loaded.tk_output, np.int32)
    scores = np.asarray(loaded.nb_ptc, np.float32)
    prior = np.asarray(loaded.nb_pc, np.float32)
    logs = np.array([math.log1p(count) for count in range(1 << 12)], np.float32)
    return _Model(known, (moves, rows, outputs, scores, prior, logs, label, decided))


@functools.cache
def _junk() -> np.ndarray:
    table = np.zeros(128, np.bool_)
    table[[ord(char) for char in _JUNK]] = True
    table.flags.writeable = False
    return table


@numba.njit(nogil=True, cache=True)
def _identify(  # type: ignore[no-untyped-def]
    data, offsets, info, fold, weights, junk, most, moves, rows, outputs, scores, prior, logs, label, decided, found,
    confidence,
):  # fmt: skip
    """Fill found (index of a code, or -1) and confidence.

    moves, rows, outputs: automaton over bytes, and the feature of each state or -1. scores: float32[feature, class],
    log probabilities; prior: of each class. logs: log1p. label: code of each class. decided: code of each script, or
    _MODEL.
    """
    tally = np.zeros(weights.shape[0], np.int64)
    sample = np.empty(4 * most, np.uint8)
    counts, touched = np.zeros(scores.shape[0], np.int32), np.empty(4 * most, np.int32)
    posterior, merged = np.empty(prior.shape[0], np.float32), np.empty(decided.max() + label.max() + 2, np.float64)
    for row in range(offsets.shape[0] - 1):
        first, last = offsets[row], offsets[row + 1]
        first_end, middle, last = _sample(data, first, last, most)
        tally[:] = 0
        lower = _weigh(data, first, first_end, junk, info, weights, tally)
        lower += _weigh(data, middle, last, junk, info, weights, tally)
        total = tally.sum()
        if total == 0:
            continue
        kana, both = tally[_KANA], tally[_HAN] + tally[_KANA]
        tally[_HAN], tally[_KANA] = both, 0
        lead = np.argmax(tally)
        share = tally[lead] / total
        if lead == _HAN and kana >= KANA_SHARE * both:
            lead = np.int64(_KANA)
        if decided[lead] != _MODEL:
            found[row], confidence[row] = decided[lead], share
            continue
        size = _write(data, first, first_end, junk, info, fold, lead, lower == 0, sample, int(0))
        size = _write(data, middle, last, junk, info, fold, lead, lower == 0, sample, size)
        used = _count_features(sample[:size], moves, rows, outputs, counts, touched)
        if used:
            _score(counts, touched[:used], scores, prior, logs, posterior)
            best, probability = _decide(posterior, size, label, merged)
            found[row], confidence[row] = best, probability * share


@numba.njit(nogil=True, cache=True)
def _sample(data: np.ndarray, first: int, last: int, most: int) -> Any:
    """Cut a sample out of a text: (end of its first part, start and end of its second one)."""
    if last - first <= most:
        return last, last, last
    first_end = _after(data, first, last, most // 2)
    middle = first + (last - first) // 2
    while data[middle] & 0xC0 == 0x80:
        middle -= 1
    middle = max(middle, first_end)
    return first_end, middle, _after(data, middle, last, most - most // 2)


@numba.njit(nogil=True, cache=True)
def _after(data: np.ndarray, at: int, end: int, count: int) -> int:
    """Find where a number of characters end."""
    while at < end and count > 0:
        at += 1
        while at < end and data[at] & 0xC0 == 0x80:
            at += 1
        count -= 1
    return at


@numba.njit(nogil=True, cache=True, inline="always")
def _ascii_word(data: np.ndarray, at: int, end: int, junk: np.ndarray) -> Any:
    """Look at the run of visible ASCII from data[at] on: (its end, whether it is no language)."""
    is_junk = False
    while at < end and 0x20 < data[at] < 0x80:
        is_junk |= junk[data[at]]
        at += 1
    return at, is_junk


@numba.njit(nogil=True, cache=True)
def _weigh(  # type: ignore[no-untyped-def]
    data, at, end, junk, info, weights, tally
):
    """Add the weights of the letters to the tally of their scripts; returns how many of them are not upper case."""
    lower, word_end = 0, at
    while at < end:
        if at >= word_end and 0x20 < data[at] < 0x80:
            word_end, is_junk = _ascii_word(data, at, end, junk)
            if is_junk:
                at = word_end
                continue
        code, width = decode(data, at, end)
        at += width
        facts = np.int64(info[code])
        kind = facts & 15
        if kind in (_LETTER, _CHARACTER):
            tally[facts >> 8] += weights[facts >> 8]
            lower += facts & _UPPER == 0
    return lower


@numba.njit(nogil=True, cache=True)
def _write(  # type: ignore[no-untyped-def]
    data, at, end, junk, info, fold, lead, shout, sample, to
):
    """Write what the model reads: no junk, no letters of other scripts, single spaces, and lower case if all shout."""
    word_end = at
    while at < end:
        if at >= word_end and 0x20 < data[at] < 0x80:
            word_end, is_junk = _ascii_word(data, at, end, junk)
            if is_junk:
                at = word_end
                continue
        code, width = decode(data, at, end)
        at += width
        facts = np.int64(info[code])
        kind = facts & 15
        if kind == _SPACE:
            if to and sample[to - 1] != 0x20:
                sample[to] = 0x20
                to += 1
            continue
        if kind in (_LETTER, _CHARACTER) and facts >> 8 != lead:
            continue
        if shout and fold[code] < 0x800:  # no letter grows when it is folded, below that
            code = np.int64(fold[code])
        to = _encode(code, sample, to)
    return to


@numba.njit(nogil=True, cache=True, inline="always")
def _encode(code: int, out: np.ndarray, to: int) -> int:
    if code < 0x80:
        out[to] = code
        return to + 1
    if code < 0x800:
        out[to], out[to + 1] = 0xC0 | code >> 6, 0x80 | (code & 0x3F)
        return to + 2
    if code < 0x10000:
        out[to], out[to + 1], out[to + 2] = 0xE0 | code >> 12, 0x80 | (code >> 6 & 0x3F), 0x80 | (code & 0x3F)
        return to + 3
    out[to], out[to + 1] = 0xF0 | code >> 18, 0x80 | (code >> 12 & 0x3F)
    out[to + 2], out[to + 3] = 0x80 | (code >> 6 & 0x3F), 0x80 | (code & 0x3F)
    return to + 4


@numba.njit(nogil=True, cache=True)
def _count_features(  # type: ignore[no-untyped-def]
    sample, moves, rows, outputs, counts, touched
):
    """Run the automaton over the sample: count its features, list the distinct ones in `touched`, return how many."""
    state, used = np.int64(0), 0
    for byte in sample:
        state = np.int64(moves[rows[state], byte])
        feature = outputs[state]
        if feature >= 0:
            if counts[feature] == 0:
                touched[used] = feature
                used += 1
            counts[feature] += 1
    return used


@numba.njit(nogil=True, cache=True)
def _score(  # type: ignore[no-untyped-def]
    counts, touched, scores, prior, logs, posterior
):
    """Add up the log posterior of every class, as py3langid does; counts are 0 again afterwards."""
    posterior[:] = prior
    for feature in touched:
        weight = logs[min(counts[feature], logs.shape[0] - 1)]
        counts[feature] = 0
        of_classes = scores[feature]
        for i in range(posterior.shape[0]):
            posterior[i] += weight * of_classes[i]


@numba.njit(nogil=True, cache=True)
def _decide(posterior: np.ndarray, size: int, label: np.ndarray, merged: np.ndarray) -> Any:
    """Find the best code and its probability: py3langid's softmax at the temperature sqrt(bytes)."""
    scale, most, total = 1 / math.sqrt(size), posterior.max(), 0.0
    merged[:] = 0.0
    for i in range(posterior.shape[0]):
        part = math.exp((posterior[i] - most) * scale)
        merged[label[i]] += part
        total += part
    best = np.argmax(merged)
    return best, merged[best] / total


@numba.njit(nogil=True, cache=True)
def _shares(data: np.ndarray, offsets: np.ndarray, info: np.ndarray, shares: np.ndarray) -> None:
    for row in range(offsets.shape[0] - 1):
        at, end, total = offsets[row], offsets[row + 1], 0
        while at < end:
            code, width = decode(data, at, end)
            at += width
            facts = np.int64(info[code])
            if facts & 15 in (_LETTER, _CHARACTER):
                shares[facts >> 8, row] += 1
                total += 1
        if total:
            for script in range(shares.shape[0]):
                shares[script, row] /= total


@numba.njit(nogil=True, cache=True)
def _simplified(data: np.ndarray, offsets: np.ndarray, variants: np.ndarray, ratio: np.ndarray) -> None:
    for row in range(offsets.shape[0] - 1):
        at, end, simple, both = offsets[row], offsets[row + 1], 0, 0
        while at < end:
            if data[at] & 0xF0 != 0xE0:  # the BMP beyond U+07FF, where all of these letters are
                at += 1
                continue
            code, width = decode(data, at, end)
            at += width
            if width == 3:
                kind = variants[code]
                simple += kind == 1
                both += kind != 0
        if both:
            ratio[row] = simple / both
