"""What wiki templates that hold prose show, without expanding them; every other template shows nothing.

The names are those of the English and Chinese Wikipedias, redirects included, as their documentation pages list them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

Arguments = tuple[list[str], dict[str, str]]

_NAME = re.compile(r"[^=\[\]<>{}]{1,40}")
_POWER = re.compile(r"e(3|6|9|12)")
_POWERS = {"3": "thousand", "6": "million", "9": "billion", "12": "trillion"}
_PREFIX = re.compile(r"^(?:template|模板|樣板|t)\s*:\s*", re.IGNORECASE)


def template_text(parts: Sequence[str], title: str) -> str:
    """Say what a template shows. parts: its name and its arguments, already without markup. title: of the page."""
    name = _PREFIX.sub("", " ".join(parts[0].replace("_", " ").split())).lower()
    if name in _CONSTANTS:
        return _CONSTANTS[name]
    if name in ("pagename", "fullpagename", "subpagename"):
        return title
    function, colon, _ = name.partition(":")
    if colon and function in ("formatnum", "lc", "uc", "lcfirst", "ucfirst", "plural"):
        return parts[0].partition(":")[2].strip()
    show = _SHOWN.get(name)
    if show is None and name.startswith(("lang-", "langx-")):
        show = _nth(1)
    if show is None:
        return ""
    return show(_arguments(parts[1:]))


def _arguments(parts: Sequence[str]) -> Arguments:
    """Positional arguments, and named ones; numbered names are positions."""
    positional: dict[int, str] = {}
    named: dict[str, str] = {}
    count = 0
    for part in parts:
        name, equals, value = part.partition("=")
        name = name.strip()
        if not equals or _NAME.fullmatch(name) is None:
            count += 1
            positional[count] = part.strip()
        elif name.isascii() and name.isdigit() and len(name) < 3:
            positional[int(name)] = value.strip()
        else:
            named[name.lower()] = value.strip()
    highest = max(positional, default=0)
    return [positional.get(number, "") for number in range(1, highest + 1)], named


def _nth(number: int) -> Callable[[Arguments], str]:
    def show(arguments: Arguments) -> str:
        positional, _ = arguments
        return positional[number - 1] if len(positional) >= number else ""

    return show


def _last(arguments: Arguments) -> str:
    return arguments[0][-1] if arguments[0] else ""


def _joined(separator: str) -> Callable[[Arguments], str]:
    def show(arguments: Arguments) -> str:
        return separator.join(value for value in arguments[0] if value)

    return show


def _quote(arguments: Arguments) -> str:
    positional, named = arguments
    quoted = named.get("text") or named.get("quote") or (positional[0] if positional else "")
    return f"\n{quoted}\n" if quoted else ""


def _convert(arguments: Arguments) -> str:
    """`{{convert|5|km}}`: the number and unit as they are given, without the conversion."""
    positional, _ = arguments
    if len(positional) > 3 and positional[1] in ("-", "–", "to", "and", "by", "x", "×", "±", "or"):
        word = positional[1]
        between = word if word in "-–" else f" {word} "
        return f"{positional[0]}{'–' if between == '-' else between}{positional[2]} {positional[3]}".strip()
    value, unit = (*positional[:2], "", "")[:2]
    power = _POWER.match(unit)
    if power is not None:  # e6km: millions of kilometres
        unit = f"{_POWERS[power[1]]} {unit[power.end() :]}"
    return f"{value} {unit}".strip()


def _nihongo(arguments: Arguments) -> str:
    """`{{nihongo|English|漢字|rōmaji}}`: English (漢字, rōmaji)."""
    positional, _ = arguments
    inner = ", ".join(value for value in positional[1:3] if value)
    shown = positional[0] if positional else ""
    return f"{shown} ({inner})" if shown and inner else shown or inner


def _chinese(arguments: Arguments) -> str:
    """`{{zh|s=汉字|t=漢字|p=hànzì}}`: the forms, in the order given, without their labels."""
    positional, named = arguments
    forms = [value for key, value in named.items() if key in ("c", "s", "t", "p", "w", "j", "l") and value]
    return "; ".join(dict.fromkeys([*positional[:1], *forms] if forms else positional[:1]))


def _fraction(arguments: Arguments) -> str:
    values = [value for value in arguments[0] if value]
    if len(values) == 3:
        return f"{values[0]} {values[1]}/{values[2]}"
    return "/".join(values) if len(values) == 2 else f"1/{values[0]}" if values else ""


def _value(arguments: Arguments) -> str:
    """`{{val|1.5|u=m}}`: number and unit."""
    positional, named = arguments
    unit = named.get("u") or named.get("ul") or ""
    return " ".join(value for value in (positional[0] if positional else "", unit) if value)


def _date(arguments: Arguments) -> str:
    return "-".join(value.zfill(2) for value in arguments[0][:3] if value.isdigit())


def _as_of(arguments: Arguments) -> str:
    positional, named = arguments
    if "alt" in named:
        return named["alt"]
    first = "as of" if named.get("lc") else "As of"
    return " ".join([first, *positional[:3]]) if positional else ""


def _circa(arguments: Arguments) -> str:
    return " ".join(["c.", *arguments[0][:1]])


_CONSTANTS = {
    "!": "|",
    "=": "=",
    "(": "{",
    ")": "}",
    "((": "{{",
    "))": "}}",
    "nbsp": " ",
    "spaces": " ",
    "thinsp": " ",
    "ndash": "–",
    "en dash": "–",
    "spnd": " – ",
    "snd": " – ",
    "spaced ndash": " – ",
    "mdash": "—",
    "em dash": "—",
    "snds": " – ",
    "·": " · ",
    "dot": " · ",
    "•": " • ",
    "bullet": " • ",
    "'": "'",
    "shy": "",
    "zwj": "\u200d",
    "zwnj": "\u200c",
    "pi": "π",
    "hyphen": "-",
}

_FIRST = (
    "nowrap nobr nowraplink nobreak small smaller smallcaps sc big larger abbr abbrlink abbreviation sup sub math mvar "
    "var kbd code tt mono em strong tq tooltip hover title underline overline strikethrough strike ul "
    "typo sic zh-hans zh-hant zh-cn zh-tw ipa angle angbr flag flagcountry bignum "
    "ill link-en link-ja link-fr link-de link-ru le link-es link-it link-ko 内部链接 內部連結 "
    "noitalic normal nobold bold italic italics noredlink bigger gaps linktext plainlink keypress "
    "僻字 unicode"
)
_SHOWN: dict[str, Callable[[Arguments], str]] = {name: _nth(1) for name in _FIRST.split()} | {
    "strong emphasis": _nth(1),
    "not a typo": _nth(1),
    "as written": _nth(1),
    "internal link helper": _nth(1),
    "interlanguage link": _nth(1),
    "interlanguage link multi": _nth(1),
    "no italic": _nth(1),
    "lang": _nth(2),
    "langx": _nth(2),
    "transl": _last,
    "transliteration": _last,
    "tlit": _last,
    "lang-zh": _chinese,
    "zh": _chinese,
    "color": _nth(2),
    "font color": _nth(2),
    "colored text": _nth(2),
    "font": _last,
    "tsl": _last,
    "translink": _last,
    "ruby": _nth(1),
    "ruby-zh-p": _nth(1),
    "ruby-zh-b": _nth(1),
    "ruby-ja": _nth(1),
    "rubi": _nth(1),
    "nihongo": _nihongo,
    "nihongo2": _nth(1),
    "nihongo3": _nth(1),
    "nihongo foot": _nth(1),
    "korean": _nth(1),
    "convert": _convert,
    "cvt": _convert,
    "frac": _fraction,
    "sfrac": _fraction,
    "fraction": _fraction,
    "val": _value,
    "circa": _circa,
    "c.": _circa,
    "ca.": _circa,
    "as of": _as_of,
    "date": _date,
    "start date": _date,
    "end date": _date,
    "quote": _quote,
    "cquote": _quote,
    "blockquote": _quote,
    "bquote": _quote,
    "quotation": _quote,
    "quote box": _quote,
    "rquote": _quote,
    "poemquote": _quote,
    "verse translation": _quote,
    "bulleted list": _joined("\n"),
    "unbulleted list": _joined("\n"),
    "ubl": _joined("\n"),
    "plainlist": _joined("\n"),
    "flatlist": _joined("\n"),
    "hlist": _joined(" · "),
    "center": _nth(1),
    "align": _nth(2),
    "isbn": lambda arguments: f"ISBN {arguments[0][0]}" if arguments[0] else "",
    "usd": lambda arguments: f"US${arguments[0][0]}" if arguments[0] else "",
    "us$": lambda arguments: f"US${arguments[0][0]}" if arguments[0] else "",
    "gbp": lambda arguments: f"£{arguments[0][0]}" if arguments[0] else "",
    "eur": lambda arguments: f"€{arguments[0][0]}" if arguments[0] else "",
}
