"""Wikitext: what a reader of the page sees stays, what holds it together goes, and hostile brackets cost no time."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.text.wiki_templates import template_text
from pipelines.text.wikitext import WikiContext, is_redirect, plain_text

ARTICLE = """{{Infobox settlement
| name = Berlin
| image = [[File:x.jpg|thumb|a [[b]] c]]
}}
'''Berlin''' ({{IPAc-en|b|ɜːr}}; {{IPA-de|bɛʁˈliːn|-|De.ogg}}) is the [[Capital of Germany|capital]] and \
[[largest city]] of [[Germany]]<ref name="a">{{cite web|url=http://x|title=T}}</ref> by people.<ref name="b" />
[[File:Berlin.jpg|thumb|200px|The [[Brandenburg Gate]] in [[Berlin]]]]
[[Category:Cities]]
[[fr:Berlin]]

== History ==
=== Name ===
From {{lang|de|''Ber''}}, [http://example.org roots]<!-- hidden -->.<br/>A line.

== Data ==
{| class="wikitable"
! A
|-
| {{n|2}}
{| nested
| x
|}
|}
== References ==
{{reflist}}
== See also ==
* [[One]]
** ''Two''
{{Navbox}}
__NOTOC__
"""
ARTICLE_TEXT = """Berlin is the capital and largest city of Germany by people.

History

Name

From Ber, roots.
A line.

See also

One
Two"""

CHINESE = """'''北京市'''（{{lang-en|Beijing}}，{{bd|1949年}}），简称“'''京'''”，\
是[[中华人民共和国]]的[[首都]]<ref>来源</ref>。
{{NoteTA|1=zh-hans:a;zh-hant:b}}
[[文件:x.jpg|缩略图|说明]][[分类:北京]]
== 历史 ==
公元前的[[燕国|燕]]，见{{link-en|人工智能|AI}}。
== 参考文献 ==
{{Reflist}}
"""


def test_an_article_in_english() -> None:
    assert plain_text(ARTICLE) == ARTICLE_TEXT


def test_an_article_in_chinese() -> None:
    first, rest = "北京市（Beijing），简称“京”，是中华人民共和国的首都。", "公元前的燕，见人工智能。"
    wanted = f"{first}\n\n历史\n\n{rest}"
    assert plain_text(CHINESE) == wanted


@pytest.mark.parametrize(
    ("markup", "simplified", "traditional"),
    [
        ("-{zh-hans:计算机; zh-hant:電腦;}-", "计算机", "電腦"),
        ("-{zh-cn:软件;zh-tw:軟體;zh-hk:軟件}-", "软件", "軟體"),
        ("-{zh:原文;zh-hant:正體}-", "原文", "正體"),
        ("-{A|zh-hans:内存;zh-hant:記憶體}-", "内存", "記憶體"),
        ("-{H|zh-hans:甲;zh-hant:乙}-", "", ""),
        ("-{T|zh:标题}-", "", ""),
        ("-{-|zh-hans:甲;zh-hant:乙}-", "", ""),
        ("-{R|干}-", "干", "干"),
        ("-{不转换}-", "不转换", "不转换"),
        ("-{zh-hans:[[甲]]; zh-hant:[[乙|丙]];}-", "甲", "丙"),
    ],
)
def test_variants_follow_the_script_of_the_page(markup: str, simplified: str, traditional: str) -> None:
    assert plain_text(f"这个时候说{markup}完") == f"这个时候说{simplified}完"
    assert plain_text(f"這個時候說{markup}完") == f"這個時候說{traditional}完"


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("[[a]]s and [[b|c]]", "as and c"),
        ("[[Berlin (film)|]]", "Berlin"),
        ("[[:Category:Foo]] [[:File:x.jpg]]", "Category:Foo File:x.jpg"),
        ("[[wikt:bear|bear]] [[s:Text|Source]]", "bear Source"),
        ("[[#Part]] [[Page#Part|part]]", "Part part"),
        ("[http://a b c] [//a d] [http://e] http://f [not a link]", "b c d http://f [not a link]"),
        ("[[File:a|[http://x y]]] after", "after"),
        ("[http://x [[y]]] after", "y after"),
        ("x [[a|b]", "x [[a|b]"),
        ("x {{a|b}", "x {{a|b}"),
        ("a]] }} |} b", "a]] }} |} b"),
        ("{{a|[[b}} c]] d", "c]] d"),
        ("{{x|{{y|{{z}}}}}}end", "end"),
        ("''i'' '''b''' '''''both'''''", "i b both"),
        ("a<ref>b</ref>c<ref name=x/>d<references/>", "acd"),
        ("a<ref>never closed b", "anever closed b"),
        ("<nowiki>[[a]] '''b''' {{c}}</nowiki>", "[[a]] '''b''' {{c}}"),
        ("<math>\\frac{a}{{b}}</math>, <code>if a [[0]]</code>", "\\frac{a}{{b}}, if a [[0]]"),
        ("H<sub>2</sub>O &amp; &lt;b&gt; x&nbsp;y", "H2O & <b> x y"),
        ("a <!-- b --> c<!-- d", "a c"),
        ("{{convert|3.8|e6km}} {{cvt|5|-|7|ft}} {{frac|1|2}} {{val|9|u=m}}", "3.8 million km 5–7 ft 1/2 9 m"),
        ("{{nowrap|a b}}{{nbsp}}{{ndash}} {{as of|2020}}, {{circa|1900}}", "a b – As of 2020, c. 1900"),
        ("{{zh|s=汉字|t=漢字|p=hànzì}} {{nihongo|Tokyo|東京|Tōkyō}}", "汉字; 漢字; hànzì Tokyo (東京, Tōkyō)"),
        ("{{tsl|en|Foo||显示}} {{langx|fr|mot}} {{color|red|warm}}", "显示 mot warm"),
        ("{{#if:x|y|z}}{{formatnum:1234}} {{PAGENAME}}", "1234 The title"),
        ("{{quote|To be.|Hamlet}}", "To be."),
        ("*a\n#b\n:c\n;d\n----\n* \n** e", "a\nb\nc\nd\ne"),
        ("== empty ==\n== full ==\ntext\n=== empty too ===", "full\n\ntext"),
    ],
)
def test_one_thing_at_a_time(markup: str, text: str) -> None:
    assert plain_text(markup, WikiContext(title="The title")) == text


def test_the_names_that_a_wiki_gives_its_files_and_categories_are_dropped() -> None:
    context = WikiContext(dropped=frozenset(("datei", "kategorie")))
    assert plain_text("a [[Datei:x.jpg|b [[c]]]] [[Kategorie:d]]", context) == "a"


def test_redirects() -> None:
    assert is_redirect("#REDIRECT [[x]]") and is_redirect(" #重定向 [[x]]") and is_redirect("#重新導向[[x]]")
    assert not is_redirect("# redirect the [[river]]") and not is_redirect("text #REDIRECT [[x]]")


def test_templates_are_known_by_any_spelling_of_their_name() -> None:
    for name in ("lang", "Lang", " lang ", "Template:Lang", "模板:lang", "LANG"):
        assert template_text([name, "de", "Wort"], "") == "Wort"
    assert template_text(["interlanguage_link", "甲"], "") == "甲"
    assert template_text(["nowrap", "1=a=b"], "") == "a=b"


HOSTILE = (
    "{{", "[[", "{|\n", "-{", "[http://a ", "<ref>", "<nowiki>", "<!--", "<", "</", "<a ", "'", "=", "\n=x=", "&#",
    "(", "( ", ", ", " ", "__A", "*", "* \n", "[[a|", "{{lang|de|", "(,", "]]", "}}", "|}\n", "}-", "]", "|", "zh:a;",
    "\n", "[[a\n",
)  # fmt: skip


def test_no_number_however_long_ends_a_run() -> None:
    endless = f"&#{'1' * 5000};"
    assert plain_text(f"a {endless} b <code>{endless}</code>") == "a \ufffd b \ufffd"


def test_blanks_in_an_argument_take_linear_time(linear_time: Callable[..., None]) -> None:
    def read(size: int) -> None:
        assert plain_text("{{lang|en|" + " " * size + "word}}{{lang|en| 2 = b" + " " * size + "}}") == "wordb"

    linear_time(read, 100_000)


@pytest.mark.parametrize("unit", HOSTILE)
def test_time_is_linear_in_what_repeats(unit: str, linear_time: Callable[..., None]) -> None:
    linear_time(lambda size: plain_text(unit * (size // len(unit))), 200_000)


@pytest.mark.parametrize(
    ("begin", "end"), [("{{a|", "}}"), ("[[a|", "]]"), ("-{", "}-"), ("{|\n", "\n|}"), ("[http://a ", "]")]
)
def test_a_hundred_thousand_nested_brackets_end(begin: str, end: str) -> None:
    assert plain_text(f"x {begin * 100_000}deep{end * 100_000}\ny").endswith("y")


@given(st.text(alphabet="ab{}[]|'=<>-/\n&;:#* 汉", max_size=300))
def test_any_text_gives_text(markup: str) -> None:
    text = plain_text(markup)
    assert "\0" not in text and text == text.strip() and "\n\n\n" not in text
