"""Character references of HTML (&amp; &#20013; &#x6587; &nbsp;), of which a text may have any number of any length."""

from __future__ import annotations

import html
import re

# No code point has more digits; Python refuses to read a number of more than 4,300.
_ENDLESS = re.compile(r"&#(?:[0-9]{9,}|[xX][0-9A-Fa-f]{9,});?")
_WHOLE = re.compile(r"&(?:#[0-9]{1,8}|#[xX][0-9A-Fa-f]{1,8}|[A-Za-z][A-Za-z0-9]{0,31});")


def unescape(text: str) -> str:
    """Replace references as browsers do: those without a ';' too; an impossible number is U+FFFD."""
    return html.unescape(_ENDLESS.sub("\ufffd", text)) if "&" in text else text


def unescape_whole(text: str) -> str:
    """Replace only references that end with a ';', once: "&amp;lt;" is "&lt;" afterwards, "?a=1&copy=2" stays."""
    return _WHOLE.sub(lambda found: html.unescape(found[0]), text)
