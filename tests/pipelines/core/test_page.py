"""What pages share: text is escaped, Han characters get their language, and small counts are seen."""

import jinja2
import pytest

from pipelines.core.page import bar, environment, language, number


@pytest.mark.parametrize(
    "text, tag",
    [
        ("今天天气很好", "zh"),
        ("ひらがなと漢字", "ja"),
        ("한국어 漢字", "ko"),
        ("a long English text 字", "und"),
        ("", "und"),
    ],
)
def test_the_language_tells_which_glyphs_han_characters_take(text: str, tag: str) -> None:
    assert language(text) == tag


def test_numbers_and_bars() -> None:
    assert [number(1234567), number(2.0), number(1234.56)] == ["1,234,567", "2", "1,234.6"]
    assert [bar(0, 10), bar(1, 10**6), bar(5, 10), bar(10, 10), bar(0, 0)] == [0, 2, 500, 1000, 0]


def test_text_is_escaped_and_a_missing_name_is_an_error() -> None:
    made = environment(twice=lambda value: 2 * value)
    assert made.from_string("{{ x }}{{ 2|twice|number }}").render(x="<b>'&") == "&lt;b&gt;&#39;&amp;4"
    with pytest.raises(jinja2.UndefinedError):
        made.from_string("{{ y }}").render(x=1)
