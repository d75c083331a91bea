"""Rules: thresholds decide, in order, by name, score and limit; profiles ask what their papers ask."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.dirty import KINDS, dirty
from pipelines.text import pages
from pipelines.text.normalize import NormalizeConfig, normalize
from pipelines.text.prepare import known_signals
from pipelines.text.rules import PROFILES, Rule, decide, groups_of, rules
from pipelines.text.signals import signals

KNOWN = known_signals()
DEFAULT = rules(["default"], {}, KNOWN)
ENGLISH = "The committee met on Tuesday to discuss the new proposal, and most of its members were in favour of it. " * 3
CHINESE = "委员会星期二开会讨论了新提案，大多数成员表示赞成，但也有人提出了不同意见，会议决定下周继续讨论。"


def reason(text: str) -> str | None:
    index = decide(signals(pa.array([text])), DEFAULT).rule[0]
    return DEFAULT[index].name if index >= 0 else None


def test_the_first_broken_rule_decides_with_its_score_and_limit() -> None:
    asked = (Rule("min_a", 2.0, ""), Rule("max_b", 5.0, ""))
    found = decide({"a": np.array([1.0, 2.0, 3.0, 0.5]), "b": np.array([9.0, 6.0, 5.0, 0.0])}, asked)
    assert found.rule.tolist() == [0, 1, -1, 0] and found.rule.dtype == np.int32
    np.testing.assert_array_equal(found.score, [1.0, 6.0, np.nan, 0.5])
    np.testing.assert_array_equal(found.threshold, [2.0, 5.0, np.nan, 2.0])


def test_what_cannot_be_measured_is_not_judged() -> None:
    found = decide({"a": np.array([np.nan])}, (Rule("min_a", 2.0, ""), Rule("max_a", 3.0, "")))
    assert found.rule.tolist() == [-1] and np.isnan(found.score[0])


def test_a_missing_signal_is_an_error() -> None:
    with pytest.raises(KeyError, match="lines"):
        decide({"chars": np.zeros(1)}, (Rule("min_lines", 1.0, ""),))


def test_a_limit_of_ones_own_takes_the_place_of_a_rule_or_comes_last_and_none_switches_it_off() -> None:
    limits = {"max_chars": None, "min_words": 5, "max_top_2_gram": 0.1}
    asked = rules(["default"], limits, KNOWN)
    names = [rule.name for rule in asked]
    assert names == [rule.name for rule in DEFAULT if rule.name != "max_chars"] + ["max_top_2_gram"]
    assert {rule.name: rule.limit for rule in asked}["min_words"] == 5.0
    assert rules(["none"], {}, KNOWN) == ()


def test_several_profiles_ask_each_rule_once() -> None:
    both = [rule.name for rule in rules(["gopher", "fineweb"], {}, KNOWN)]
    assert both == [rule.name for rule in PROFILES["fineweb"]] and len(set(both)) == len(both)


def test_an_unknown_profile_or_rule_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown profile 'goper'; known: default, gopher"):
        rules(["goper"], {}, KNOWN)
    for name in ("top_2_gram", "min_nothing", "max"):
        with pytest.raises(ValueError, match=rf"unknown rule '{name}'"):
            rules(["default"], {name: 1.0}, KNOWN)


def test_every_rule_of_every_profile_bounds_a_signal_and_says_where_it_comes_from() -> None:
    for profile in PROFILES.values():
        for rule in profile:
            assert rule.signal in KNOWN and rule.source and rule.name[:4] in ("min_", "max_")


def test_only_the_groups_of_signals_that_the_rules_need_are_named() -> None:
    assert groups_of(DEFAULT) == ()
    assert groups_of(rules(["fineweb"], {}, KNOWN)) == ("gopher", "repetition", "fineweb")
    assert groups_of(rules(["none"], {"min_c4_lines": 3}, KNOWN)) == ("c4",) and set(groups_of(DEFAULT)) <= set(
        pages.GROUPS
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ENGLISH, None),
        (CHINESE, None),
        ("Too short.", "min_chars"),
        ("太短了。", "min_chars"),
        ("incomprehensibilities " * 10, "min_words"),
        ("a b c d e f g h " * 10, "min_mean_word_length"),
        ("abcdefghijklmnopqrstuvwxyz " * 40, "max_mean_word_length"),
        ("one #two three #four " * 20, "max_symbol_ratio"),
        ("天 … 地 … 玄 … 黄 … " * 20, "max_symbol_ratio"),
        ("=-=-=-=-= | +++ " * 20 + ENGLISH[:100] + " x" * 30, "min_letter_ratio"),
        (("1234 5678 abcdefghijklmnopqr " * 20), "max_digit_ratio"),
        ("\n".join(f"- {i} {line}" for i, line in enumerate([ENGLISH[:60]] * 12)), "max_bullet_line_ratio"),
        ("\n".join(f"・{chr(0x4E00 + i)}{CHINESE}" for i in range(12)), "max_bullet_line_ratio"),
        ("\n".join(f"{chr(0x4E00 + i)}{CHINESE}……" for i in range(12)), "max_ellipsis_line_ratio"),
        ("\n".join([ENGLISH[:80]] * 8), "max_duplicate_line_ratio"),
        ("\n".join([CHINESE] * 8), "max_duplicate_line_ratio"),
        (ENGLISH.replace("e", "\ufffd"), "max_replacement_ratio"),
    ],
)
def test_reasons_of_the_default_rules(text: str, expected: str | None) -> None:
    assert reason(text) == expected


@pytest.mark.parametrize("corpus", ["wikipedia_en", "wikipedia_zh", "laws_zh"])
def test_bodies_of_good_corpora_stay(corpus: str, real_texts: Callable[[str, int], list[str]]) -> None:
    measured = signals(pa.array(real_texts(corpus, 4_000_000)))
    kept = decide(measured, DEFAULT).rule < 0
    bodies = measured["chars"] > 200
    assert bodies.sum() > 100 and kept[bodies].mean() >= 0.97


@pytest.mark.parametrize("corpus", ["wikipedia_zh", "laws_zh"])
def test_the_chinese_profile_keeps_good_bodies_and_removes_dirty_copies(
    corpus: str, real_texts: Callable[[str, int], list[str]]
) -> None:
    asked = rules(["chinese"], {}, KNOWN)

    def kept(texts: list[str]) -> np.ndarray:
        repaired = normalize(pa.array(texts), NormalizeConfig())
        return decide(signals(repaired) | pages.page_signals(repaired, groups_of(asked)), asked).rule < 0

    bodies = [text for text in real_texts(corpus, 3_000_000) if len(text) > 200]
    assert len(bodies) > 100 and kept(bodies).mean() >= 0.97
    copies = list(dirty(bodies, "zh"))
    stays = kept([text for _, text in copies])
    for kind in KINDS:
        assert stays[[name == kind for name, _ in copies]].mean() <= 0.03, kind
