"""From MediaWiki's markup to plain text, in time linear in the page.

A page is read once, with a stack of open brackets: `{{…}}`, `[[…]]`, `{|…|}`, `-{…}-`, `[http… …]`. Templates are not
expanded, for that takes the wiki's own database; those that only dress a text (languages, non-breaking, small capitals,
links to other wikis) give their text, the others nothing. Brackets that do not close are text. See docs/reading.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pipelines.text.entities import unescape
from pipelines.text.wiki_templates import template_text

MAX_DEPTH = 60  # deeper brackets are dropped; MediaWiki stops at 40 templates and 100 tags
_MARK = "\0"  # no XML document holds it

# Tags whose content is no prose, those whose content is literal, and what is left of the others: nothing.
_DROPPED = [
    "ref",
    "references",
    "gallery",
    "timeline",
    "imagemap",
    "score",
    "graph",
    "templatedata",
    "templatestyles",
    "mapframe",
    "maplink",
    "hiero",
    "includeonly",
    "categorytree",
    "inputbox",
    "section",
    "indicator",
    "style",
    "script",
]
_LITERAL = ["nowiki", "pre", "source", "syntaxhighlight", "code", "math", "chem", "ce"]
_TAG = re.compile(rf"<(?P<close>/?)(?P<name>{'|'.join(_DROPPED + _LITERAL)})(?P<rest>(?:\s[^<>]*|/?))>", re.IGNORECASE)
_CLOSERS = {name: re.compile(rf"</{name}\s*>", re.IGNORECASE) for name in (*_DROPPED, *_LITERAL)}
_ANY_TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9]{0,15}(?:\s[^<>]{0,2000})?/?>")
_BREAK = re.compile(r"<(?:br|hr|/p|/div|/li|/tr|/blockquote|/center|/h[1-6])\b[^<>]{0,200}>", re.IGNORECASE)

_TOKEN = re.compile(
    r"(?P<open>\{\{|\[\[|-\{|^[ \t:*#;]*\{\||\[(?=(?:https?:|ftp:|mailto:|news:|irc:|//)))"
    r"|(?P<close>^[ \t]*\|\}(?!\})|\}\}|\}-|\]+)|(?P<bar>\|)",
    re.MULTILINE,
)
_CLOSES = {"{{": "}}", "[[": "]]", "-{": "}-", "{|": "|}", "[": "]"}

_MEDIA = frozenset(
    [
        "file",
        "image",
        "media",
        "category",
        "文件",
        "图像",
        "圖像",
        "檔案",
        "档案",
        "媒体文件",
        "媒體檔案",
        "媒体",
        "媒體",
        "分類",
        "分类",
    ]
)
# Interlanguage links: codes of Wikipedias, in two or three letters, some with a variety.
_LANGUAGE = re.compile(
    r"(?:[a-z]{2,3}|simple|zh-(?:min-nan|yue|classical|hans|hant|cn|tw)|be-x-old|bat-smg|roa-[a-z]+)$"
)
_SISTERS = frozenset(
    [
        "wikipedia",
        "w",
        "wiktionary",
        "wikt",
        "wikinews",
        "n",
        "wikibooks",
        "b",
        "wikiquote",
        "q",
        "wikisource",
        "s",
        "wikiversity",
        "v",
        "wikivoyage",
        "voy",
        "wikispecies",
        "species",
        "commons",
        "c",
        "meta",
        "m",
        "wikidata",
        "d",
        "mw",
        "mediawiki",
        "incubator",
        "phabricator",
    ]
)

_HEADING = re.compile(r"^(={1,6})[ \t]*(.+?)[ \t]*\1[ \t]*$")
_QUOTES = re.compile(r"'{2,}")
_SWITCH = re.compile(r"__[A-Z]{3,30}__|__[\u4e00-\u9fff]{2,12}__")
_REDIRECT = re.compile(r"\s*#(?:redirect|重定向|重新導向)\s*:?\s*\[\[", re.IGNORECASE)
_BULLET = re.compile(r"^[*#:;]+[ \t]*")
_SPACES = re.compile(r"[ \t\u00a0]{2,}|\u00a0")
_EMPTY_PARENTHESES = re.compile(r"[ \t]?[(（][\s,;:,，；：、/·-]*[)）]")
_LEADING = re.compile(r"(?<=[(（])[\s,;:，；：、/]+")
_TRAILING = re.compile(r"[\s,;，；、]{1,20}(?=[)）])")
_TRAILED = re.compile(r"[)）](?<=[\s,;，；、].)", re.DOTALL)
_BEFORE_STOP = re.compile(r" (?<=\w )(?=[,.;:!?](?:\s|$))")
_NO_WORD = re.compile(r"^[\W_]+$")
_VARIANT = re.compile(r"(?:^|;)\s*(zh(?:-[a-z]+)?)\s*:\s*([^;]*)", re.IGNORECASE)
_VARIANTS = {
    "simplified": ("zh-hans", "zh-cn", "zh-sg", "zh-my", "zh"),
    "traditional": ("zh-hant", "zh-tw", "zh-hk", "zh-mo", "zh"),
}
# Characters of one script only, all among the thousand most frequent of Chinese.
_SIMPLIFIED = "们这来为国说时会对发经与过当种点个进还学现从动长问关样实开无见车东书马门话边连运议认让报级给场"
_TRADITIONAL = "們這來為國說時會對發經與過當種點個進還學現從動長問關樣實開無見車東書馬門話邊連運議認讓報級給場"
_COUNT_SIMPLIFIED = re.compile(f"[{_SIMPLIFIED}]")
_COUNT_TRADITIONAL = re.compile(f"[{_TRADITIONAL}]")


class _Frame:
    """An open bracket: its parts, between bars, each a list of pieces."""

    __slots__ = ("kind", "opener", "parts")

    def __init__(self, kind: str, opener: str) -> None:
        self.kind = kind
        self.opener = opener
        self.parts: list[list[str]] = [[]]


class WikiContext(NamedTuple):
    """What the markup of a page means depends on: its title, and the wiki's names for files and categories."""

    title: str = ""
    dropped: frozenset[str] = frozenset()


def is_redirect(markup: str) -> bool:
    """Whether a page only leads to another one."""
    return _REDIRECT.match(markup) is not None


NO_CONTEXT = WikiContext()


def plain_text(markup: str, context: WikiContext = NO_CONTEXT) -> str:
    """Reduce the markup of a page to its text: paragraphs, list items and headings, each on its line.

    Left out: references, tables, files, categories, templates that hold no prose, headings with nothing below them.
    Formulas and code stay as they are written. Of Chinese variants (`-{zh-hans:…; zh-hant:…}-`) the one is taken whose
    script the rest of the page is in.
    """
    kept: list[str] = []
    text = _without_elements(_without_comments(markup.replace(_MARK, "")), kept)
    text = _brackets(text, context, _script(markup) if "-{" in markup else "")
    if "''" in text:
        text = _QUOTES.sub("", text)
    if "<" in text:
        text = _ANY_TAG.sub("", _BREAK.sub("\n", text))
    text = unescape(text)
    if "__" in text:
        text = _SWITCH.sub("", text)
    lines = _sections(_tidy(text))
    if not kept:
        return lines
    return re.sub(f"{_MARK}(\\d+){_MARK}", lambda found: kept[int(found[1])], lines)


def _script(markup: str) -> str:
    simplified = len(_COUNT_SIMPLIFIED.findall(markup))
    return "simplified" if simplified >= len(_COUNT_TRADITIONAL.findall(markup)) else "traditional"


def _without_comments(text: str) -> str:
    if "<!--" not in text:
        return text
    pieces, at = [], 0
    while (begin := text.find("<!--", at)) >= 0:
        pieces.append(text[at:begin])
        end = text.find("-->", begin + 4)
        if end < 0:
            return "".join(pieces)
        at = end + 3
    return "".join([*pieces, text[at:]])


def _without_elements(text: str, kept: list[str]) -> str:
    """Take out the elements whose content is no wikitext; literal ones leave a mark, by which they come back."""
    pieces: list[str] = []
    at = 0
    unclosed: set[str] = set()
    for found in _TAG.finditer(text):
        if found.start() < at:
            continue
        name = found["name"].lower()
        pieces.append(text[at : found.start()])
        at = found.end()
        if found["close"] or found["rest"].endswith("/") or name in unclosed:
            continue
        end = _CLOSERS[name].search(text, at)
        if end is None:
            unclosed.add(name)  # none of this name closes behind here
            continue
        if name in _LITERAL:
            pieces.append(f"{_MARK}{len(kept)}{_MARK}")
            kept.append(unescape(text[at : end.start()]).replace(_MARK, ""))
        at = end.end()
    return "".join([*pieces, text[at:]])


def _brackets(text: str, context: WikiContext, script: str) -> str:
    frames = [_Frame("", "")]
    at, too_deep = 0, 0
    for token in _TOKEN.finditer(text):
        frame = frames[-1]
        if token.start() > at:
            frame.parts[-1].append(text[at : token.start()])
        at = max(at, token.end())
        mark = token[0]
        if token["bar"]:
            if frame.kind in ("{{", "[[", "-{"):
                frame.parts.append([])
            else:
                frame.parts[-1].append(mark)
        elif token["open"]:
            kind = mark.lstrip(" \t:*#;")
            if len(frames) > MAX_DEPTH:
                too_deep += kind != "["
            else:
                frames.append(_Frame(kind, mark))
        else:
            for closer in _closers(mark, frames):
                if too_deep and closer != "]":
                    too_deep -= 1
                else:
                    _close(frames, closer, context, script)
    pieces = [piece for frame in frames for piece in (frame.opener, *_joined(frame))]
    return "".join([*pieces, text[at:]])


def _closers(mark: str, frames: list[_Frame]) -> Iterator[str]:
    """What a token closes: `]]]` is the end of a link in a link's label, or of a link and of what is outside it."""
    if not mark.startswith("]"):
        yield mark.strip(" \t")
        return
    left = len(mark)
    while left:
        size = 1 if left == 1 or frames[-1].kind == "[" else 2
        yield "]" * size
        left -= size


def _joined(frame: _Frame) -> list[str]:
    """The pieces of a bracket that does not close, as they stood."""
    pieces = list(frame.parts[0])
    for part in frame.parts[1:]:
        pieces += ["|", *part]
    return pieces


def _close(frames: list[_Frame], closer: str, context: WikiContext, script: str) -> None:
    for depth in range(len(frames) - 1, 0, -1):
        kind = frames[depth].kind
        if _CLOSES[kind] == closer:
            break
        if kind in ("{{", "{|") and closer in ("]]", "]", "}-"):
            depth = 0  # a link does not end outside the template that it begins in
            break
    else:
        depth = 0
    if not depth:
        frames[-1].parts[-1].append(closer)
        return
    for frame in frames[depth + 1 :]:
        frames[depth].parts[-1] += [frame.opener, *_joined(frame)]
    closed = frames[depth]
    del frames[depth:]
    parts = ["".join(part) for part in closed.parts]
    rendered = _RENDER[closed.kind](parts, context, script)
    if rendered:
        frames[-1].parts[-1].append(rendered)


def _template(parts: list[str], context: WikiContext, script: str) -> str:
    return template_text(parts, context.title)


def _table(parts: list[str], context: WikiContext, script: str) -> str:
    return "\n"


def _link(parts: list[str], context: WikiContext, script: str) -> str:
    target = parts[0].strip()
    if not target or "\n" in target:
        return "" if not target else "[[" + "|".join(parts) + "]]"
    shown = target.startswith(":")
    target = target.lstrip(":").strip()
    prefix, colon, _ = target.partition(":")
    prefix = prefix.strip().lower()
    if colon and not shown:
        if prefix in _MEDIA or prefix in context.dropped:
            return ""
        if _LANGUAGE.match(prefix) and len(parts) == 1 and prefix not in _SISTERS:
            return ""
    label = parts[-1].strip() if len(parts) > 1 else ""
    if label:
        return label
    if len(parts) > 1 and len(target) < 300:  # the pipe trick
        return re.sub(r"\s*(?:\([^()]*\)|（[^（）]*）)$", "", target.partition(":")[2] or target).strip()
    return target.removeprefix("#").replace("_", " ")


def _external(parts: list[str], context: WikiContext, script: str) -> str:
    if "\n" in parts[0]:
        return f"[{parts[0]}]"
    return parts[0].partition(" ")[2].strip()


def _variant(parts: list[str], context: WikiContext, script: str) -> str:
    flag, rules = (parts[0].strip(), "|".join(parts[1:])) if len(parts) > 1 else ("", parts[0])
    if flag.upper() in ("H", "T", "D", "-", "N") and flag:
        return ""
    if flag.upper() == "R":
        return rules
    choices = {name.lower(): value.strip() for name, value in _VARIANT.findall(rules) if value.strip()}
    if not choices:
        return rules.strip() if "=>" not in rules else ""
    wanted = _VARIANTS[script]
    return next((choices[name] for name in wanted if name in choices), next(iter(choices.values())))


_RENDER: dict[str, Callable[[list[str], WikiContext, str], str]] = {
    "{{": _template,
    "{|": _table,
    "[[": _link,
    "[": _external,
    "-{": _variant,
}


def _tidy(text: str) -> str:
    """Repair what the left-out parts leave: empty parentheses, doubled spaces, lines of punctuation alone."""
    text = _SPACES.sub(" ", text)
    if "(" in text or "（" in text:
        text = _LEADING.sub("", text)
        if _TRAILED.search(text):
            text = _TRAILING.sub("", text)
        for _ in range(2):
            text = _EMPTY_PARENTHESES.sub("", text)
    return _BEFORE_STOP.sub("", text)


def _sections(text: str) -> str:
    """Join the lines of a page: list marks and empty lines go, and headings below which no line is left."""
    out: list[str] = []
    pending: list[tuple[int, str]] = []
    gap = False
    for raw in text.split("\n"):
        line = raw.strip()
        heading = _HEADING.match(line)
        if heading is not None:
            level = len(heading[1])
            while pending and pending[-1][0] >= level:
                pending.pop()
            pending.append((level, heading[2].strip()))
            continue
        line = _BULLET.sub("", line).strip()
        if not line or (_MARK not in line and _NO_WORD.match(line)):
            gap = gap or not raw.strip()
            continue
        for _, title in pending:
            out += ["", title, ""] if title else []
        if gap and not pending and out:
            out.append("")
        pending.clear()
        gap = False
        out.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip()
