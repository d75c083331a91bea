"""Rules: thresholds on signals that decide which texts stay. A profile is a list of rules that somebody published.

A rule's name is `min_` or `max_` and a signal, so every signal can be bounded; each removal names its rule, its score
and its threshold. Rules are asked in order, the first that is broken is the reason.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipelines.text import pages


class Rule(NamedTuple):
    """A text stays where its signal is not below (`min_`) or not above (`max_`) the limit; NaN, not measurable, stays.

    source: paper, peer or file that the rule and its limit come from.
    """

    name: str
    limit: float
    source: str

    @property
    def signal(self) -> str:
        """The signal that the rule looks at."""
        return self.name[4:]

    def breaks(self, values: np.ndarray) -> np.ndarray:
        """Which values, float64[n], break the rule: bool[n]."""
        return values < self.limit if self.name.startswith("min_") else values > self.limit


class Decisions(NamedTuple):
    """What the rules say of each text: index of the first rule that it breaks, int32, or -1; then score and threshold.

    score, threshold: float64, the signal and the limit that it broke; NaN where no rule is broken.
    """

    rule: np.ndarray
    score: np.ndarray
    threshold: np.ndarray


_OURS = "Gristmill"
_GOPHER = "Gopher (Rae et al. 2021, table A1)"
_FINEWEB = "FineWeb (Penedo et al. 2024, section 3.5)"
_C4 = "C4 (Raffel et al. 2020, section 2.2)"
_REFINEDWEB = "RefinedWeb (Penedo et al. 2023, appendix G.2)"

_DEFAULT = (
    Rule("min_chars", 30, f"{_OURS}: 30 Han characters are about 100 Latin ones; min_words asks more of the latter"),
    Rule("max_chars", 2_000_000, _OURS),
    Rule("min_words", 30, f"{_GOPHER}: 50; 30 leaves room for stubs"),
    Rule("max_replacement_ratio", 0.01, _OURS),
    Rule("min_mean_word_length", 2, f"{_GOPHER}: 3; of words between spaces only"),
    Rule("max_mean_word_length", 12, f"{_GOPHER}: 10; of words between spaces only"),
    Rule("max_symbol_ratio", 0.1, _GOPHER),
    Rule("min_letter_ratio", 0.6, f"{_OURS}; stands for Gopher's 80 % of words with a letter, in any script"),
    Rule("max_digit_ratio", 0.3, _OURS),
    Rule("max_bullet_line_ratio", 0.9, _GOPHER),
    Rule("max_ellipsis_line_ratio", 0.3, _GOPHER),
    Rule("max_duplicate_line_ratio", 0.3, f"{_GOPHER}: 0.2"),
)
_GOPHER_QUALITY = (  # in the order of datatrove's gopher_quality_filter.py
    Rule("min_gopher_words", 50, _GOPHER),
    Rule("max_gopher_words", 100_000, _GOPHER),
    Rule("min_gopher_mean_word_length", 3, _GOPHER),
    Rule("max_gopher_mean_word_length", 10, _GOPHER),
    Rule("max_gopher_hash_ratio", 0.1, _GOPHER),
    Rule("max_gopher_ellipsis_ratio", 0.1, _GOPHER),
    Rule("max_gopher_bullet_ratio", 0.9, _GOPHER),
    Rule("max_gopher_end_ellipsis_ratio", 0.3, _GOPHER),
    Rule("min_gopher_alpha_ratio", 0.8, _GOPHER),
    Rule("min_gopher_stop_words", 2, _GOPHER),
)
_GOPHER_REPETITION = (  # in the order of datatrove's gopher_repetition_filter.py
    Rule("max_dup_para_frac", 0.3, _GOPHER),
    Rule("max_dup_para_char_frac", 0.2, _GOPHER),
    Rule("max_dup_line_frac", 0.3, _GOPHER),
    Rule("max_dup_line_char_frac", 0.2, _GOPHER),
    *(Rule(f"max_top_{n}_gram", limit, _GOPHER) for n, limit in ((2, 0.20), (3, 0.18), (4, 0.16))),
    *(Rule(f"max_dup_{n}_gram", (20 - n) / 100, _GOPHER) for n in range(5, 11)),
)
_C4_PAGE = (
    Rule("max_c4_lorem_ipsum", 0, _C4),
    Rule("max_c4_curly_bracket", 0, _C4),
    Rule("min_c4_sentences", 5, _C4),
)
_FINEWEB_QUALITY = (
    Rule("min_line_punct_ratio", 0.12, _FINEWEB),
    Rule("max_short_line_ratio", 0.67, _FINEWEB),
    Rule("max_line_char_dup_ratio", 0.01, _FINEWEB),
    Rule("max_newline_ratio", 0.3, f"{_FINEWEB}; datatrove new_line_ratio"),
)
# Counterparts in characters. The limits of n-grams are of 5 and 10 characters, about 3 and 6 words, and wider than
# Gopher's: laws, which repeat their formulas, have up to 0.54 and 0.40 (docs/cleaning.md has the measurement).
_CHINESE = (
    Rule("min_chars", 50, f"{_OURS}; {_GOPHER}: 50 words, about 80 characters"),
    Rule("max_chars", 500_000, f"{_OURS}; {_GOPHER}: 100,000 words"),
    Rule("max_replacement_ratio", 0.01, _OURS),
    Rule("min_han_ratio", 0.3, f"{_OURS}: other letters are names and formulas, or broken decoding"),
    Rule("min_chinese_stop_words", 2, f"{_GOPHER}: 2 of 8 stop words"),
    Rule("min_letter_ratio", 0.6, f"{_GOPHER}: 80 % of words with a letter"),
    Rule("max_digit_ratio", 0.3, _OURS),
    Rule("max_symbol_ratio", 0.1, _GOPHER),
    Rule("max_bullet_line_ratio", 0.9, _GOPHER),
    Rule("max_ellipsis_line_ratio", 0.3, _GOPHER),
    Rule("max_dup_para_frac", 0.3, _GOPHER),
    Rule("max_dup_para_char_frac", 0.2, _GOPHER),
    Rule("max_dup_line_frac", 0.3, _GOPHER),
    Rule("max_dup_line_char_frac", 0.2, _GOPHER),
    Rule("max_dup_5_gram", 0.6, f"{_GOPHER}, in characters"),
    Rule("max_dup_10_gram", 0.45, f"{_GOPHER}, in characters"),
    Rule("min_line_punct_ratio", 0.12, _FINEWEB),
    Rule("max_short_line_ratio", 0.9, f"{_FINEWEB}: 0.67; 30 characters are a longer line in Chinese"),
)
PROFILES: dict[str, tuple[Rule, ...]] = {
    "default": _DEFAULT,
    "gopher": _GOPHER_REPETITION + _GOPHER_QUALITY,
    "c4": _C4_PAGE,
    "fineweb": _GOPHER_REPETITION + _GOPHER_QUALITY + _FINEWEB_QUALITY,
    "refinedweb": (*_GOPHER_REPETITION, *_GOPHER_QUALITY, Rule("max_removed_word_ratio", 0.05, _REFINEDWEB)),
    "chinese": _CHINESE,
    "none": (),
}


def rules(
    profiles: Sequence[str],
    limits: Mapping[str, float | None],
    known: Collection[str],
    first: Sequence[Rule] = (),
    lists: Mapping[str, tuple[Rule, ...]] = PROFILES,
) -> tuple[Rule, ...]:
    """List the rules of some profiles in order, each once, with the user's own limits in their place or after them.

    limits: rule → threshold, None to switch the rule off. known: the signals that a limit may be about. first: rules
    before those of the profiles. lists: the profiles that there are. ValueError for another signal or profile.
    """
    if unknown := [name for name in profiles if name not in lists]:
        raise ValueError(f"unknown profile {unknown[0]!r}; known: {', '.join(lists)}")
    for name in limits:
        if name[:4] not in ("min_", "max_") or name[4:] not in known:
            raise ValueError(f"unknown rule {name!r}: a rule is min_ or max_ and a signal; signals: {', '.join(known)}")
    found = {rule.name: rule for some in (first, *(lists[profile] for profile in profiles)) for rule in some}
    for name, limit in limits.items():
        if limit is None:
            found.pop(name, None)
        else:
            source = f"{_OURS}'s user" if name not in found else found[name].source
            found[name] = Rule(name, float(limit), source)
    return tuple(found.values())


def groups_of(asked: Sequence[Rule]) -> tuple[str, ...]:
    """Name the groups of page signals that some rules need, in the order of `pages.GROUPS`."""
    wanted = {rule.signal for rule in asked}
    return tuple(group for group, docs in pages.GROUPS.items() if wanted & set(docs))


def decide(measured: Mapping[str, np.ndarray], asked: Sequence[Rule]) -> Decisions:
    """Find the first rule that each text breaks; measured: signal → float64[n]. KeyError for a missing signal."""
    count = len(next(iter(measured.values()))) if measured else 0
    decisions = Decisions(np.full(count, -1, np.int32), np.full(count, np.nan), np.full(count, np.nan))
    for index, rule in enumerate(asked):
        values = np.asarray(measured[rule.signal], np.float64)
        hit = rule.breaks(values) & (decisions.rule < 0)
        decisions.rule[hit] = index
        decisions.score[hit] = values[hit]
        decisions.threshold[hit] = rule.limit
    return decisions
