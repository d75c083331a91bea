from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pyarrow as pa
import pytest

from pipelines.text.filters import FilterConfig, Rule, decide, rules
from pipelines.text.signals import SIGNALS, signals

OFF = FilterConfig(**dict.fromkeys((field.name for field in fields(FilterConfig)), None))
ENGLISH = "The committee met on Tuesday to discuss the new proposal, and most of its members were in favour of it. " * 3
CHINESE = "委员会星期二开会讨论了新提案，大多数成员表示赞成，但也有人提出了不同意见，会议决定下周继续讨论。"


def reason(text: str) -> str | None:
    asked = rules(FilterConfig())
    index = decide(signals(pa.array([text])), asked).rule[0]
    return asked[index].name if index >= 0 else None


def test_the_first_broken_rule_decides_with_its_score_and_limit() -> None:
    asked = (Rule("low", "a", 2.0, None, ""), Rule("high", "b", None, 5.0, ""))
    found = decide({"a": np.array([1.0, 2.0, 3.0, 0.5]), "b": np.array([9.0, 6.0, 5.0, 0.0])}, asked)
    assert found.rule.tolist() == [0, 1, -1, 0] and found.rule.dtype == np.int32
    np.testing.assert_array_equal(found.score, [1.0, 6.0, np.nan, 0.5])
    np.testing.assert_array_equal(found.threshold, [2.0, 5.0, np.nan, 2.0])


def test_a_rule_with_two_limits_names_the_one_that_was_broken() -> None:
    found = decide({"a": np.array([1.0, 4.0, 9.0])}, (Rule("between", "a", 2.0, 8.0, ""),))
    assert found.rule.tolist() == [0, -1, 0] and found.threshold[[0, 2]].tolist() == [2.0, 8.0]


def test_what_cannot_be_measured_is_not_judged() -> None:
    found = decide({"a": np.array([np.nan])}, (Rule("low", "a", 2.0, 3.0, ""),))
    assert found.rule.tolist() == [-1] and np.isnan(found.score[0])


def test_a_missing_signal_is_an_error() -> None:
    with pytest.raises(KeyError, match="lines"):
        decide({"chars": np.zeros(1)}, (Rule("r", "lines", 1.0, None, ""),))


def test_none_switches_a_rule_off_and_a_limit_on() -> None:
    assert rules(OFF) == ()
    (rule,) = rules(replace(OFF, max_digit_ratio=0.25))
    assert (rule.name, rule.signal, rule.minimum, rule.maximum) == ("max_digit_ratio", "digit_ratio", None, 0.25)
    (rule,) = rules(replace(OFF, min_words=5))
    assert (rule.name, rule.signal, rule.minimum, rule.maximum) == ("min_words", "words", 5.0, None)


def test_every_field_is_a_rule_about_a_signal_and_says_where_it_comes_from() -> None:
    asked = rules(FilterConfig(**dict.fromkeys((field.name for field in fields(FilterConfig)), 1.0)))
    assert [rule.name for rule in asked] == [field.name for field in fields(FilterConfig)]
    for rule in asked:
        assert rule.signal in SIGNALS and rule.source
        assert rule.name in (f"min_{rule.signal}", f"max_{rule.signal}"), "a reason names what was measured"


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
    kept = decide(measured, rules(FilterConfig())).rule < 0
    bodies = measured["chars"] > 200
    assert bodies.sum() > 100 and kept[bodies].mean() >= 0.97
