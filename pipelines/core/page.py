"""What the HTML pages of reports share: numbers, bars, and the language of texts that are quoted."""

from __future__ import annotations

import re
from typing import Any

from jinja2 import Environment, StrictUndefined

_KANA, _HANGUL = re.compile(r"[\u3040-\u30ff]"), re.compile(r"[\uac00-\ud7a3]")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")


def language(text: str) -> str:
    """Guess the language tag that has a browser choose the right glyphs for Han characters; 'und' for other text."""
    if _KANA.search(text):
        return "ja"
    if _HANGUL.search(text):
        return "ko"
    return "zh" if len(_HAN.findall(text)) * 4 > len(text) else "und"


def number(value: float) -> str:
    """Write a count with its thousands apart, and another number with one digit after the point."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}".removesuffix(".0")


def bar(value: float, most: float) -> int:
    """The width of a bar where that of `most` is 1000: at least a hair for what is not 0, so that it can be seen."""
    return 0 if not value else max(2, round(1000 * value / most))


def environment(**filters: Any) -> Environment:
    """Make the templates' environment: every text is escaped, a name that is not given is an error.

    Filters: number, language, width (a bar's), and those given.
    """
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"number": number, "language": language, "width": bar, **filters}
    return made
