"""Print how much of a page's main text the HTML extractors find, and how fast: token F1 on pages whose truth is known.

    python benchmarks/extraction.py [--pages N] [--only NAME …]

Pages are made from real articles (Wikipedia, English and Chinese) in eight templates, semantic to table layout, with
menus, sidebars, cookie banners, advertisements, comments and footers made of other articles' words; with code, tables
and lists in the text; half of them with broken markup. Tokens are words, in Chinese characters. Extractors that are not
installed are named.
"""

from __future__ import annotations

import argparse
import html
import importlib
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from corpora import missing, records

WORD = re.compile(r"\w+")
CHARACTER = re.compile(r"[\u3400-\u9fff\U00020000-\U0003ffff]|[^\W\u3400-\u9fff]+")

CHROME = {
    "en": {
        "menu": [
            "Home",
            "News",
            "Sports",
            "Business",
            "Technology",
            "Opinion",
            "About",
            "Contact",
            "Archive",
            "Subscribe",
            "Login",
            "Help",
        ],
        "cookie": "We use cookies to improve your experience. By continuing you agree to our cookie policy.",
        "accept": "Accept all",
        "ad": "Advertisement. Save 30% on your first order today with code SAVE30.",
        "share": "Share on Facebook Tweet Email Print",
        "related": "Related articles",
        "comments": "Comments",
        "reply": "Reply",
        "footer": "Copyright 2024 Example Media Ltd. All rights reserved. Terms of use. Privacy policy.",
        "newsletter": "Sign up for our newsletter and never miss a story.",
        "says": "says:",
    },
    "zh": {
        "menu": [
            "首页",
            "新闻",
            "体育",
            "财经",
            "科技",
            "评论",
            "关于我们",
            "联系方式",
            "归档",
            "订阅",
            "登录",
            "帮助",
        ],
        "cookie": "我们使用Cookie来改善您的体验。继续浏览即表示您同意我们的Cookie政策。",
        "accept": "全部接受",
        "ad": "广告：首单立减三十元，使用优惠码即可享受。",
        "share": "分享到微信 微博 邮件 打印",
        "related": "相关文章",
        "comments": "网友评论",
        "reply": "回复",
        "footer": "版权所有 二〇二四 示例传媒有限公司 保留所有权利 使用条款 隐私政策 京ICP备00000000号",
        "newsletter": "订阅我们的电子报，不错过任何消息。",
        "says": "说：",
    },
}


@dataclass(frozen=True)
class Page:
    """A page and its truth. language: 'en' or 'zh'."""

    template: str
    language: str
    markup: str
    truth: str


@dataclass(frozen=True)
class Article:
    """What a page is made of: a title, blocks of (kind, text), and the words that surround them."""

    title: str
    blocks: tuple[tuple[str, str], ...]
    links: tuple[str, ...]
    comments: tuple[str, ...]


def articles(language: str, count: int, seed: int) -> Iterator[Article]:
    """Make articles of real paragraphs, each with a list, a table or code among them."""
    rng = random.Random(seed)
    found = [r for r in islice(records([f"wikipedia_{language}"]), 20 * count) if len(r["text"]) > 600]
    for i in range(count):
        record = found[i % len(found)]
        others = [found[rng.randrange(len(found))] for _ in range(24)]
        paragraphs = [line.strip() for line in record["text"].splitlines() if len(line.strip()) > 20][:14]
        blocks: list[tuple[str, str]] = [("p", text) for text in paragraphs]
        terms = [other["title"] for other in others[:6]]
        extra = [
            ("list", "\n".join(terms[:4])),
            ("table", "\n".join(f"{term}\t{rng.randrange(1000)}" for term in terms[:5])),
            ("code", f"def area(width, height):\n    return width * height  # {terms[0]}\nprint(area(3, {i}))"),
            ("h2", terms[5]),
        ]
        for kind, text in rng.sample(extra, 2):
            blocks.insert(rng.randrange(1, len(blocks) + 1), (kind, text))
        comments = tuple(other["text"].split("\n")[0][:160] for other in others[6:9])
        yield Article(record["title"], tuple(blocks), tuple(other["title"] for other in others), comments)


def _block(kind: str, text: str, paragraph: str = "<p>{}</p>") -> str:
    lines = [html.escape(line) for line in text.split("\n")]
    if kind == "p":
        return paragraph.format(lines[0])
    if kind == "list":
        return "<ul>" + "".join(f"<li>{line}</li>" for line in lines) + "</ul>"
    if kind == "table":
        rows = ("<tr>" + "".join(f"<td>{cell}</td>" for cell in line.split("\t")) + "</tr>" for line in lines)
        return "<table>" + "".join(rows) + "</table>"
    return f"<pre><code>{chr(10).join(lines)}</code></pre>" if kind == "code" else f"<h2>{lines[0]}</h2>"


def _links(names: tuple[str, ...] | list[str]) -> str:
    return "".join(f'<li><a href="/{i}">{html.escape(name)}</a></li>' for i, name in enumerate(names))


def semantic(a: Article, c: dict, lang: str) -> str:
    """HTML5 elements, as content management systems write them."""
    body = "\n".join(_block(*block) for block in a.blocks)
    return f"""<!DOCTYPE html><html lang="{lang}"><head><meta charset="utf-8"><title>{html.escape(a.title)}</title>
<style>body {{ color: #333 }}</style><script>var x = "<p>not text</p>";</script></head><body>
<header><a href="/">Example</a><nav><ul>{_links(c["menu"])}</ul></nav></header>
<main><article><h1>{html.escape(a.title)}</h1>{body}</article></main>
<aside><h3>{c["related"]}</h3><ul>{_links(a.links[:8])}</ul></aside>
<footer><p>{c["footer"]}</p></footer></body></html>"""


def blog(a: Article, c: dict, lang: str) -> str:
    """Divisions with telling names, a sidebar before the text, comments behind it."""
    body = "\n".join(_block(*block) for block in a.blocks)
    said = "".join(
        f'<li class="comment"><div class="comment-author">{name} {c["says"]}</div><div class="comment-body">'
        f'<p>{html.escape(text)}</p></div><a class="comment-reply-link" href="#">{c["reply"]}</a></li>'
        for name, text in zip(("anna", "bob", "chen"), a.comments, strict=False)
    )
    return f"""<html lang="{lang}"><head><title>{html.escape(a.title)} | Blog</title></head><body class="home blog">
<div id="cookie-banner" class="cookie-consent"><p>{c["cookie"]}</p><button>{c["accept"]}</button></div>
<div id="header"><div class="menu"><ul>{_links(c["menu"])}</ul></div></div>
<div id="sidebar" class="sidebar widget-area"><div class="widget">
<h3>{c["related"]}</h3><ul>{_links(a.links)}</ul></div>
<div class="widget newsletter"><p>{c["newsletter"]}</p></div></div>
<div id="content" class="post"><h1 class="entry-title">{html.escape(a.title)}</h1>
<div class="entry-content">{body}</div>
<div class="sharedaddy share-buttons">{c["share"]}</div></div>
<div id="comments" class="comments-area"><h3>{c["comments"]}</h3><ol class="comment-list">{said}</ol></div>
<div id="footer">{c["footer"]}</div></body></html>"""


def news(a: Article, c: dict, lang: str) -> str:
    """Advertisements, teasers and buttons between the paragraphs."""
    pieces = []
    for i, block in enumerate(a.blocks):
        pieces.append(_block(*block))
        if i % 3 == 1:
            pieces.append(f'<div class="ad-slot advertisement"><span>{c["ad"]}</span></div>')
        if i % 4 == 2:
            link = html.escape(a.links[i % len(a.links)])
            pieces.append(f'<div class="related-inline"><a href="/r">{c["related"]}: {link}</a></div>')
    return f"""<!doctype html><html lang="{lang}"><head><title>{html.escape(a.title)}</title></head><body>
<div class="topbar"><ul class="nav navbar">{_links(c["menu"])}</ul></div><div class="wrapper">
<div class="article-body" itemprop="articleBody"><h1>{html.escape(a.title)}</h1>
<div class="social-share">{c["share"]}</div>{"".join(pieces)}</div>
<div class="newsletter-signup"><p>{c["newsletter"]}</p><input type="email"></div>
<div class="most-read"><h4>{c["related"]}</h4><ol>{_links(a.links[:10])}</ol></div></div>
<div class="site-footer"><p>{c["footer"]}</p><ul>{_links(c["menu"])}</ul></div></body></html>"""


def tables(a: Article, c: dict, lang: str) -> str:
    """Table layout of the 1990s: no classes, paragraphs that nothing closes."""
    body = "".join(_block(kind, text, "<p>{}\n") for kind, text in a.blocks)
    menu = "<br>".join(f'<a href="{i}.html">{name}</a>' for i, name in enumerate(c["menu"]))
    return f"""<HTML><HEAD><TITLE>{html.escape(a.title)}</TITLE></HEAD><BODY BGCOLOR="#ffffff">
<TABLE WIDTH="100%"><TR><TD COLSPAN=2><FONT SIZE=5>Example</FONT></TD></TR><TR><TD WIDTH=150 VALIGN=top>{menu}</TD>
<TD><H1>{html.escape(a.title)}</H1>{body}</TD></TR>
<TR><TD COLSPAN=2><FONT SIZE=1>{c["footer"]}</FONT></TD></TR></TABLE></BODY></HTML>"""


def breaks(a: Article, c: dict, lang: str) -> str:
    """Text in divisions with line breaks, class names that a build tool made up."""
    body = "".join(_block(kind, text, "{}<br/><br/>") for kind, text in a.blocks)
    menu = "".join(f'<div class="css-9f1k"><a href="/{i}">{name}</a></div>' for i, name in enumerate(c["menu"]))
    side = "".join(f'<div class="css-77ab"><a href="/x{i}">{html.escape(n)}</a></div>' for i, n in enumerate(a.links))
    return f"""<!doctype html><html><head><title>{html.escape(a.title)}</title></head><body><div class="css-1a2b">
<div class="css-0aa1">{menu}</div><div class="css-3c4d"><div class="css-5e6f"><h1>{html.escape(a.title)}</h1>
<div class="css-8g9h">{body}</div></div><div class="css-2222">{side}</div></div>
<div class="css-ffff">{c["footer"]}</div></div></body></html>"""


def docs(a: Article, c: dict, lang: str) -> str:
    """Documentation: a tree of links before the text, links to the pages beside it behind."""
    body = "\n".join(_block(*block) for block in a.blocks)
    return f"""<!DOCTYPE html><html lang="{lang}"><head><meta charset="utf-8"><title>{html.escape(a.title)}
documentation</title></head><body><div class="related" role="navigation"><ul>{_links(c["menu"])}</ul></div>
<div class="document"><div class="documentwrapper"><div class="bodywrapper"><div class="body" role="main">
<section><h1>{html.escape(a.title)}<a class="headerlink" href="#x" title="Permalink">¶</a></h1>{body}</section></div>
</div></div><div class="sphinxsidebar" role="navigation"><ul>{_links(a.links)}</ul></div></div>
<div class="footer" role="contentinfo">{c["footer"]}</div></body></html>"""


def menus(a: Article, c: dict, lang: str) -> str:
    """A long menu that is hidden by style, a dialogue over the page, and a short text."""
    body = "\n".join(_block(*block) for block in a.blocks[:4])
    many = _links([*c["menu"], *a.links, *a.links])
    return f"""<!DOCTYPE html><html lang="{lang}"><head><title>{html.escape(a.title)}</title></head><body>
<div class="modal" role="dialog" aria-hidden="true"><p>{c["cookie"]}</p><button>{c["accept"]}</button></div>
<nav style="display:none"><ul>{many}</ul></nav><div class="breadcrumb"><a href="/">{c["menu"][0]}</a> &gt;
<a href="/n">{c["menu"][1]}</a></div><div class="page"><h1>{html.escape(a.title)}</h1>{body}</div>
<div class="pagination"><a href="?2">2</a> <a href="?3">3</a></div><footer>{c["footer"]}</footer></body></html>"""


def inline(a: Article, c: dict, lang: str) -> str:
    """Text in which every other word is a link or is emphasised, as in encyclopaedias."""
    rng = random.Random(len(a.title))

    def linked(text: str) -> str:
        words = re.split(r"(?<=[ ，。、])", text)
        return "".join(
            f'<a href="/w/{i}">{html.escape(w)}</a>' if w.strip() and rng.random() < 0.25 else html.escape(w)
            for i, w in enumerate(words)
        )

    body = "".join(f"<p>{linked(text)}</p>" if kind == "p" else _block(kind, text) for kind, text in a.blocks)
    return f"""<!DOCTYPE html><html lang="{lang}"><head><title>{html.escape(a.title)}</title></head><body>
<div id="mw-navigation"><ul>{_links(c["menu"])}</ul></div><div id="content" class="mw-body">
<h1 id="firstHeading">{html.escape(a.title)}</h1><div id="bodyContent">{body}</div></div>
<div id="footer" role="contentinfo"><ul><li>{c["footer"]}</li></ul></div></body></html>"""


TEMPLATES: dict[str, Callable[[Article, dict, str], str]] = {
    f.__name__: f for f in (semantic, blog, news, tables, breaks, docs, menus, inline)
}
_CLOSING = re.compile(r"</(?:p|li|td|tr|span|a|div|h2)>")


def broken(markup: str, seed: int) -> str:
    """Drop one closing tag in twenty, and leave a few characters unescaped, as on real pages."""
    rng = random.Random(seed)
    markup = _CLOSING.sub(lambda found: "" if rng.random() < 0.05 else found[0], markup)
    return markup.replace("&amp;", "&").replace("&#x27;", "'").replace("<br/>", "<br></br>")


def pages(language: str, count: int, seed: int = 0) -> Iterator[Page]:
    """Make `count` pages of each template; every second one has broken markup."""
    for number, (name, template) in enumerate(TEMPLATES.items()):
        for i, article in enumerate(articles(language, count, seed + number)):
            markup = template(article, CHROME[language], language)
            used = article.blocks[:4] if name == "menus" else article.blocks
            truth = "\n".join([article.title, *(text for _, text in used)])
            yield Page(name, language, broken(markup, i) if i % 2 else markup, truth)


def tokens(text: str, language: str) -> Counter[str]:
    """Count the words, or, in Chinese, the characters of a text."""
    return Counter((CHARACTER if language == "zh" else WORD).findall(text.lower()))


def score(found: str, truth: str, language: str) -> tuple[float, float, float]:
    """Precision, recall and F1 of the tokens, as multisets."""
    have, want = tokens(found, language), tokens(truth, language)
    both = sum((have & want).values())
    if not both:
        return 0.0, 0.0, 0.0
    precision, recall = both / sum(have.values()), both / sum(want.values())
    return precision, recall, 2 * precision * recall / (precision + recall)


def _ours() -> Callable[[str, str], str]:
    from pipelines.text.extract import page_text

    return lambda markup, language: page_text(markup, True).text


def _resiliparse(main: bool) -> Callable[[str, str], str]:
    extract = importlib.import_module("resiliparse.extract.html2text").extract_plain_text
    return lambda markup, language: extract(markup, main_content=main, alt_texts=False, comments=not main)


def _trafilatura(**options: bool) -> Callable[[str, str], str]:
    extract = importlib.import_module("trafilatura").extract
    return lambda markup, language: extract(markup, include_comments=False, **options) or ""


def _justext() -> Callable[[str, str], str]:
    justext = importlib.import_module("justext")
    lists = {"en": justext.get_stoplist("English"), "zh": frozenset()}

    def extract(markup: str, language: str) -> str:
        paragraphs = justext.justext(markup, lists[language])
        return "\n".join(paragraph.text for paragraph in paragraphs if not paragraph.is_boilerplate)

    return extract


def _readability() -> Callable[[str, str], str]:
    document = importlib.import_module("readability").Document
    lxml_html = importlib.import_module("lxml.html")

    def extract(markup: str, language: str) -> str:
        return lxml_html.fromstring(document(markup).summary()).text_content()

    return extract


def _rs_trafilatura() -> Callable[[str, str], str]:
    extract = importlib.import_module("rs_trafilatura").extract
    return lambda markup, language: extract(markup).main_content or ""


def _inscriptis() -> Callable[[str, str], str]:
    get_text = importlib.import_module("inscriptis").get_text
    return lambda markup, language: get_text(markup)


EXTRACTORS: dict[str, Callable[[], Callable[[str, str], str]]] = {
    "gristmill": _ours,
    "resiliparse, main content": lambda: _resiliparse(True),
    "resiliparse, all text": lambda: _resiliparse(False),
    "trafilatura": _trafilatura,
    "trafilatura, fast": lambda: _trafilatura(fast=True),
    "trafilatura, favor recall": lambda: _trafilatura(favor_recall=True),
    "justext": _justext,
    "readability-lxml": _readability,
    "rs-trafilatura": _rs_trafilatura,
    "inscriptis (all text)": _inscriptis,
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=25, metavar="N", help="of each template and language")
    parser.add_argument("--only", action="append", metavar="NAME", help="an extractor; repeatable")
    parser.add_argument("--by-template", action="store_true", help="F1 of each template too")
    args = parser.parse_args()
    if absent := missing(("wikipedia_en", "wikipedia_zh")):
        sys.exit(f"not found: {', '.join(absent)}")
    made = {language: list(pages(language, args.pages)) for language in ("en", "zh")}
    for language, some in made.items():
        size = sum(len(page.markup.encode()) for page in some)
        print(f"{language}: {len(some)} pages in {len(TEMPLATES)} templates, {size / 1e6:.1f} MB")
    print(f"\n| {'extractor':<26} | en F1 | prec. | recall | zh F1 | prec. | recall | MB/s |")
    print(f"|{'-' * 28}|------:|------:|-------:|------:|------:|-------:|-----:|")
    for name, make in EXTRACTORS.items():
        if args.only and name not in args.only:
            continue
        try:
            extract = make()
        except ModuleNotFoundError as error:
            print(f"| {name:<26} | not installed: {error.name}")
            continue
        _row(name, extract, made, args.by_template)


def _row(name: str, extract: Callable[[str, str], str], made: dict[str, list[Page]], by_template: bool) -> None:
    cells, seconds, size = [], 0.0, 0
    templates: dict[str, list[float]] = {}
    extract(made["en"][0].markup, "en")
    for language, some in made.items():
        scores = []
        for page in some:
            begin = time.perf_counter()
            try:
                found = extract(page.markup, language)
            except Exception:  # what a peer raises on a page, it has not found in it
                found = ""
            seconds += time.perf_counter() - begin
            size += len(page.markup.encode())
            scores.append(score(found, page.truth, language))
            templates.setdefault(f"{page.template} {language}", []).append(scores[-1][2])
        precision, recall, f1 = (sum(column) / len(scores) for column in zip(*scores, strict=True))
        cells.append(f"{f1:.3f} | {precision:.3f} |  {recall:.3f}")
    print(f"| {name:<26} | {cells[0]} | {cells[1]} | {size / 1e6 / seconds:>4.1f} |", flush=True)
    if by_template:
        print("    " + ", ".join(f"{key} {sum(values) / len(values):.3f}" for key, values in templates.items()))


if __name__ == "__main__":
    main()
