"""Pages whose nesting would cost a parser of HTML too much, rewritten so that it does not.

A parser's time grows with the square of the depth of elements, and the formatting elements that are open (<b>, <font>)
are opened again in each block, as HTML wants it. What a tree of such a page would be, only the parser knows, so nothing
here guesses it: a page passes if it is certain that it stays within the limits, and is rewritten otherwise.
"""

from __future__ import annotations

import re

MAX_DEPTH = 500  # of elements; Chromium stops at 512, and Resiliparse's time grows with the square of it

_BLANK = r"\t\n\f\r "
# As the standard reads tags (13.2.5): quotes count only behind a '=', and a tag without an end goes to the page's end.
_TOKEN = re.compile(
    rf"<(?:(?P<close>/?)(?P<name>[A-Za-z][^{_BLANK}/>]*)"
    rf"(?:[{_BLANK}/]|[^{_BLANK}/>][^{_BLANK}/>=]*"
    rf"(?:[{_BLANK}]*=[{_BLANK}]*(?:\"[^\"]*(?:\"|\Z)|'[^']*(?:'|\Z)|[^{_BLANK}>\"'][^{_BLANK}>]*))?)*(?:>|\Z)"
    r"|!--(?:-?>|.*?(?:--!?>|\Z))|[!?/][^>]*(?:>|\Z))",
    re.DOTALL,
)


def _names(names: str) -> frozenset[str]:
    return frozenset(names.split())


_VOID = _names("area base br col embed hr img input link meta param source track wbr")
_RAW = _names("iframe noembed noframes script style textarea title xmp")  # no tags in them
_CLOSERS = {name: re.compile(rf"</{name}(?=[{_BLANK}/>])", re.IGNORECASE) for name in _RAW}
_ROOT = _names("html head body")
_FORMATTING = _names("a b big code em font i nobr s small strike strong tt u")
_FOREIGN = _names("svg math")  # other rules hold in them
_UNTAMED = _names("plaintext frameset")
_BLOCKS = _names(
    "address article aside blockquote center details div dl fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 "
    "header li main nav ol pre section summary ul"
)
_TABLE = _names("table caption colgroup thead tbody tfoot tr td th")
_KEPT = _BLOCKS | _TABLE | _VOID | _names("p dd dt button a span")

# The elements whose end may be left out, by what ends them: the next one, or the end of what holds them.
_CELLS = _names("td th")
_ITEMS = _names("dd dt")
_BY_START = {
    "p": _names("p"),
    "li": _names("li"),
    "option": _names("option"),
    "tr": _CELLS | {"tr"},
    "tbody": _CELLS | _names("tr thead tbody"),
    **dict.fromkeys(_CELLS, _CELLS),
    **dict.fromkeys(_ITEMS, _ITEMS),
}
_BY_END = {
    **dict.fromkeys(_BLOCKS | _CELLS, _names("p")),
    "ul": _names("li p"),
    "ol": _names("li p"),
    "dl": _ITEMS | {"p"},
    "select": _names("option"),
    "tr": _CELLS,
    **dict.fromkeys(_names("thead tbody tfoot"), _CELLS | {"tr"}),
    "table": _CELLS | _names("tr thead tbody tfoot"),
}
_NONE: frozenset[str] = frozenset()


def flattened(markup: str) -> str:
    """Return the page as it is, or, if its elements may nest too deep, without most inline tags and the deepest ones.

    The rewritten page has the same text, and each of its elements is closed where it ends. Linear in the page's length.
    """
    return markup if markup.count("<") < MAX_DEPTH or _is_tame(markup) else _tamed(markup)


def _is_tame(markup: str) -> bool:
    """Whether the page surely has no more than MAX_DEPTH elements in each other, nor many formatting ones per block.

    An element counts as closed only where no rule of the standard could keep it open: where its end is next.
    """
    stack: list[str] = []
    foreign = active = copies = tags = at = 0
    while (found := _TOKEN.search(markup, at)) is not None:
        at = found.end()
        if found["name"] is None:
            if foreign and markup.startswith("<![CDATA[", found.start()):
                return False
            continue
        name = found["name"].lower()
        if name in _ROOT or (name in _VOID and not foreign):
            continue
        if found["close"]:
            ended = _BY_END.get(name, _NONE) if not foreign else _NONE
            top = len(stack)
            while top and stack[top - 1] in ended and stack[top - 1] != name:
                top -= 1
            if top and stack[top - 1] == name:
                del stack[top - 1 :]
                active -= name in _FORMATTING
                foreign -= name in _FOREIGN
            continue
        if name in _UNTAMED:
            return False
        tags += 1
        if name in _RAW and not foreign:
            end = _CLOSERS[name].search(markup, at)
            inside = markup[at : end.start() if end else len(markup)]
            if "select" in stack or (name == "script" and "<!--" in inside and "<script" in inside.lower()):
                return False
            at = end.end() if end else len(markup)
            continue
        if not foreign:
            ended = _BY_START.get(name, _NONE)
            while stack and stack[-1] in ended:
                stack.pop()
        stack.append(name)
        foreign += name in _FOREIGN
        if name in _FORMATTING:
            active += 1
        else:
            copies += active
        if len(stack) > MAX_DEPTH or copies > 10_000 + tags:
            return False
    return True


def _tamed(markup: str) -> str:
    """Write the page anew: its blocks, tables and links, well nested, without other inline tags, scripts and comments.

    Tags nested deeper than MAX_DEPTH are blanks.
    """
    out: list[str] = []
    stack: list[str] = []
    count = dict.fromkeys(_KEPT, 0)
    at = 0

    def close() -> None:
        count[stack[-1]] -= 1
        out.append(f"</{stack[-1]}>" if len(stack) <= MAX_DEPTH else " ")
        stack.pop()

    while (found := _TOKEN.search(markup, at)) is not None:
        out.append(markup[at : found.start()])
        at = found.end()
        name = (found["name"] or "").lower()
        if name in _ROOT and not found["close"]:
            out.append(found[0])
        elif name in _RAW and not found["close"]:
            end = _CLOSERS[name].search(markup, at)
            if name == "title" and end is not None:
                out += ["<title>", markup[at : end.start()], "</title>"]
            at = end.start() if end else len(markup)
        elif name not in _KEPT:
            continue
        elif name in _VOID:
            out.append(found[0])
        elif found["close"]:
            if count[name]:
                while stack[-1] != name:
                    close()
                close()
        else:
            ended = _BY_START.get(name, _NONE)
            while stack and stack[-1] in ended:
                close()
            stack.append(name)
            count[name] += 1
            out.append(found[0] if len(stack) <= MAX_DEPTH else " ")
    return "".join([*out, markup[at:]])
