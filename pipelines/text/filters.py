"""Rules that decide, from signals, which texts stay; each removal names its rule, its score and its threshold.

Rules that count words count them by the script (see `signals`), and rules about the length of words speak only of texts
with spaces between them: a rule asks of a Chinese text what it asks of an English one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Rule(NamedTuple):
    """A text stays where minimum <= signal <= maximum; a missing limit is None, and NaN (not measurable) stays."""

    name: str
    signal: str
    minimum: float | None
    maximum: float | None
    source: str


class Decisions(NamedTuple):
    """What the rules say of each text: index of the first rule that it breaks, int32, or -1; then score and threshold.

    score, threshold: float64, the signal and the limit that it broke; NaN where no rule is broken.
    """

    rule: np.ndarray
    score: np.ndarray
    threshold: np.ndarray


_GOPHER = "Gopher (Rae et al. 2021, table A1)"
_OURS = "Gristmill"
# rules run in this order; a limit's field is min_… or max_… and gives the rule its name
_RULES = {
    "min_chars": ("chars", f"{_OURS}: 30 Han characters are about 100 Latin ones; min_words asks more of the latter"),
    "max_chars": ("chars", _OURS),
    "min_words": (
        "words",
        f"{_GOPHER}: 50; datatrove min_doc_words; 30 leaves room for stubs",
    ),
    "max_words": ("words", f"{_GOPHER}: 100,000; datatrove max_doc_words"),
    "max_replacement_ratio": ("replacement_ratio", _OURS),
    "min_mean_word_length": ("mean_word_length", f"{_GOPHER}: 3; datatrove min_avg_word_length; spaced words only"),
    "max_mean_word_length": ("mean_word_length", f"{_GOPHER}: 10; datatrove max_avg_word_length; spaced words only"),
    "max_symbol_ratio": ("symbol_ratio", f"{_GOPHER}: 0.1; datatrove max_symbol_word_ratio"),
    "min_letter_ratio": ("letter_ratio", f"{_OURS}; stands for Gopher's 80 % of words with a letter, in any script"),
    "max_digit_ratio": ("digit_ratio", _OURS),
    "max_punct_ratio": ("punct_ratio", _OURS),
    "max_whitespace_ratio": ("whitespace_ratio", _OURS),
    "max_bullet_line_ratio": ("bullet_line_ratio", f"{_GOPHER}: 0.9; datatrove max_bullet_lines_ratio"),
    "max_ellipsis_line_ratio": ("ellipsis_line_ratio", f"{_GOPHER}: 0.3; datatrove max_ellipsis_lines_ratio"),
    "max_duplicate_line_ratio": ("duplicate_line_ratio", f"{_GOPHER}: 0.2; datatrove dup_line_char_frac"),
    "min_terminal_punct_line_ratio": ("terminal_punct_line_ratio", "C4 (Raffel et al. 2020); FineWeb: 0.12"),
    "max_longest_run": ("longest_run", _OURS),
}


@dataclass(frozen=True)
class FilterConfig:
    """Thresholds of the rules; None switches a rule off. Defaults: Gopher's, with room for stubs and tables."""

    min_chars: float | None = 30
    max_chars: float | None = 2_000_000
    min_words: float | None = 30
    max_words: float | None = None
    max_replacement_ratio: float | None = 0.01
    min_mean_word_length: float | None = 2
    max_mean_word_length: float | None = 12
    max_symbol_ratio: float | None = 0.1
    min_letter_ratio: float | None = 0.6
    max_digit_ratio: float | None = 0.3
    max_punct_ratio: float | None = None
    max_whitespace_ratio: float | None = None
    max_bullet_line_ratio: float | None = 0.9
    max_ellipsis_line_ratio: float | None = 0.3
    max_duplicate_line_ratio: float | None = 0.3
    min_terminal_punct_line_ratio: float | None = None
    max_longest_run: float | None = None


def rules(config: FilterConfig) -> tuple[Rule, ...]:
    """List the rules that a configuration switches on, in the order in which they are asked."""
    switched_on = ((name, getattr(config, name)) for name in _RULES)
    return tuple(
        Rule(
            name,
            _RULES[name][0],
            float(limit) if name.startswith("min_") else None,
            float(limit) if name.startswith("max_") else None,
            _RULES[name][1],
        )
        for name, limit in switched_on
        if limit is not None
    )


def decide(signals: Mapping[str, np.ndarray], rules: tuple[Rule, ...]) -> Decisions:
    """Find the first rule that each text breaks; signals: name → float64[n]. Raises KeyError for a missing signal."""
    count = len(next(iter(signals.values()))) if signals else 0
    decisions = Decisions(np.full(count, -1, np.int32), np.full(count, np.nan), np.full(count, np.nan))
    for index, rule in enumerate(rules):
        values = np.asarray(signals[rule.signal], np.float64)
        for limit, broken in ((rule.minimum, np.less), (rule.maximum, np.greater)):
            if limit is not None:
                hit = broken(values, limit) & (decisions.rule < 0)
                decisions.rule[hit] = index
                decisions.score[hit] = values[hit]
                decisions.threshold[hit] = limit
    return decisions
