"""Print how much of an article's text comes out of wikitext, how much rubbish with it, and how fast.

    python benchmarks/wikitext.py [--articles N]

Articles of Wikipedia (plain text, English and Chinese) are dressed in markup: links, emphasis, references, an infobox,
files with links in their captions, tables, galleries, categories, templates that hold text and others that hold none,
and in Chinese the marks of its variants. Tokens as in benchmarks/extraction.py.
"""

from __future__ import annotations

import argparse
import importlib
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice

from corpora import missing, records
from extraction import score

WORDS = {
    "en": (
        "File",
        "Category",
        "References",
        "{{Reflist}}",
        "{{lang|de|%s}}",
        "{{nowrap|%s}}",
        "{{Main|Other article}}",
    ),
    "zh": (
        "文件",
        "分类",
        "参考文献",
        "{{Reflist}}",
        "-{zh-hans:%s;zh-hant:另一種}-",
        "{{lang|en|%s}}",
        "{{Main|其他条目}}",
    ),
}


def dressed(record: dict[str, str], language: str, seed: int) -> str:
    """Put the text of an article in markup; what a reader of the page sees of it is the text."""
    rng = random.Random(seed)
    file, category, notes, reflist, *templates = WORDS[language]

    def dress(word: str) -> str:
        chance = rng.random()
        if chance < 0.06:
            return f"[[{word}]]"
        if chance < 0.12:
            return f"[[Some page ({seed})|{word}]]"
        if chance < 0.14:
            return f"'''{word}'''"
        if chance < 0.16:
            return templates[rng.randrange(2)] % word
        if chance < 0.17:
            return f'{word}<ref name="r{seed}">{{{{cite web|url=http://a.example/{seed}|title=A [[source]]}}}}</ref>'
        return word

    out = [
        f"{{{{Infobox\n| name = {record['title']}\n| image = x.jpg\n| area = {{{{convert|3|km}}}}\n}}}}",
        templates[2],
    ]
    for number, paragraph in enumerate(line for line in record["text"].split("\n") if line.strip()):
        pieces = re.split(r"(?<=\s)|(?<=[，。、])", paragraph)
        out.append("".join(dress(p) if p.strip(" ，。、[]{}|'*#:;=<>&") == p and p else p for p in pieces))
        if number == 1:
            out.append(f"[[{file}:Photo.jpg|thumb|200px|A [[caption]] of {{{{nowrap|two words}}}}]]")
        if number == 2:
            out.append('{| class="wikitable"\n! A !! B\n|-\n| 1 || [[two]]\n|-\n| {{n|3}} || 4\n|}')
        out.append("")
    out += [f"== {notes} ==", reflist, f"[[{category}:Things]]", "<gallery>\nPhoto.jpg|words\n</gallery>", "__NOTOC__"]
    return "\n".join(out)


def articles(language: str, count: int) -> Iterator[tuple[str, str]]:
    """Yield (markup, text); only articles whose text has no characters that markup gives a meaning to."""
    plain = (
        r
        for r in records([f"wikipedia_{language}"])
        if len(r["text"]) > 400 and not re.search(r"[\[\]{}<>|=&']", r["text"])
    )
    for seed, record in enumerate(islice(plain, count)):
        yield dressed(record, language, seed), record["text"]


def _ours() -> Callable[[str], str]:
    from pipelines.text.wikitext import plain_text

    return plain_text


def _mwparserfromhell() -> Callable[[str], str]:
    parse = importlib.import_module("mwparserfromhell").parse
    return lambda markup: parse(markup).strip_code()


def _wikitextparser() -> Callable[[str], str]:
    parse = importlib.import_module("wikitextparser").parse
    return lambda markup: parse(markup).plain_text()


PARSERS = {"gristmill": _ours, "mwparserfromhell": _mwparserfromhell, "wikitextparser": _wikitextparser}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", type=int, default=200, metavar="N", help="of each language")
    args = parser.parse_args()
    if absent := missing(("wikipedia_en", "wikipedia_zh")):
        sys.exit(f"not found: {', '.join(absent)}")
    made = {language: list(articles(language, args.articles)) for language in WORDS}
    print(f"| {'parser':<18} | en F1 | prec. | recall | zh F1 | prec. | recall | MB/s |")
    print(f"|{'-' * 20}|------:|------:|-------:|------:|------:|-------:|-----:|")
    for name, make in PARSERS.items():
        try:
            parse = make()
        except ModuleNotFoundError as error:
            print(f"| {name:<18} | not installed: {error.name}")
            continue
        cells, seconds, size = [], 0.0, 0
        for language, some in made.items():
            scores = []
            for markup, text in some:
                begin = time.perf_counter()
                found = parse(markup)
                seconds += time.perf_counter() - begin
                size += len(markup.encode())
                scores.append(score(found, text, language))
            precision, recall, f1 = (sum(column) / len(scores) for column in zip(*scores, strict=True))
            cells.append(f"{f1:.3f} | {precision:.3f} |  {recall:.3f}")
        print(f"| {name:<18} | {' | '.join(cells)} | {size / 1e6 / seconds:>4.1f} |", flush=True)


if __name__ == "__main__":
    main()
