"""Pages that cost a parser too much: none passes, whatever hides its depth, and none loses text or sound structure."""

import random
from collections.abc import Callable

import pytest
from resiliparse.parse.html import HTMLTree

from pipelines.text import nesting
from pipelines.text.extract import page_text
from pipelines.text.nesting import MAX_DEPTH, flattened

FORMATTING = "".join(f"<b id={i}>" for i in range(450))
# What is repeated holds elements open while the markup looks balanced: names that are not open, quotes, comments,
# scripts, places where an end means nothing, foreign elements.
HOSTILE = [
    "<div></x>", '<div a="<">', "<div><!--</div>-->", "<div a='</div>'>", "<div><script></div></script>",
    "<div><script><!--<script></script></div>--></script>", "<div><select></div></select>", "<td><div></td>",
    "<div><table><td></div></table>", "<svg><link>", "<svg><![CDATA[></svg>]]>", "<svg><style><div></style>",
    "<select><style></select><div></style>", "<span><li></span><span><dd></span>", "<a_b>", "<div><template></div>",
    "<p><a href=x>", "<b><i></b>", "<table><table></table><td><div></td>", '<div a=">', "<div/>", "<ruby><rt>x",
    "<li><div><li></li><span></div>", "<button><div><button><span></div>",
]  # fmt: skip


def depth_and_size(markup: str) -> tuple[int, int]:
    """Of the tree that Resiliparse makes: the deepest node, and how many there are."""
    deepest = size = 0
    nodes = [(HTMLTree.parse(markup).document.first_child, 1)]
    while nodes:
        node, depth = nodes.pop()
        while node is not None:  # `child_nodes` takes time quadratic in their number
            size += 1
            deepest = max(deepest, depth)
            nodes.append((node.first_child, depth + 1))
            node = node.next
    return deepest, size


@pytest.mark.parametrize("unit", HOSTILE)
def test_nothing_hides_the_depth_of_a_page(unit: str) -> None:
    markup = f"<html><body>{unit * 2000}the text"
    # A table cell brings <tbody> and <tr>, and what is dropped from a table stands before it.
    assert depth_and_size(flattened(markup))[0] <= 3 * MAX_DEPTH


@pytest.mark.parametrize("unit", HOSTILE)
def test_time_is_linear_in_what_repeats(unit: str, linear_time: Callable[..., None]) -> None:
    linear_time(lambda size: page_text(f"<html><body>{unit * (size // len(unit))}the text"), 150_000)


@pytest.mark.parametrize("unit", ["<p>x", "<div>x</div>", "<li>x", "<table><td>x</table>"])
def test_open_formatting_is_not_copied_into_every_block(unit: str) -> None:
    markup = f"<html><body><p>{FORMATTING}{unit * 4000}"
    assert markup.count("<") * 8 > depth_and_size(flattened(markup))[1]
    assert page_text(markup, main_content=False).text.split() == ["x"] * 4000


def test_random_tags_never_pass_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nesting, "MAX_DEPTH", 20)
    names = "div p b a span li ul dd table td tr select option button svg path title style script template h1".split()  # noqa: SIM905
    odd = ["<!--", "-->", "<![CDATA[", "]]>", "<!x>", ' x="', "' ", ">", "<div/>", '<div a">', "<p a = >"]
    rng = random.Random(1)
    tame = 0
    for _ in range(400):
        some = rng.sample(names, 4)

        def tag(some: list[str] = some) -> str:
            if rng.random() < 0.1:
                return rng.choice(odd)
            return f"<{'/' if rng.random() < 0.45 else ''}{rng.choice(some)}>"

        markup = "".join(tag() for _ in range(rng.randrange(5))) + "".join(tag() for _ in range(9)) * 40
        safe = flattened(markup)
        tame += safe == markup
        assert depth_and_size(safe)[0] <= 70, markup
    assert 40 < tame < 360


def test_ordinary_pages_stay_as_they_are() -> None:
    rows = "<tr><td>a<td><p>b</p></td></tr><tr><td><b>x</b></td></tr>" * 300
    icon = '<svg viewBox="0 0 1 1"><title>Icon</title><g><path d="M0 0"></path></g></svg><br><img src=x>'
    script = "<script>if (a<b) document.write('<div><div>')</script><style>a > b {}</style><!-- <div> -->"
    for page in (
        f"<table><tbody>{rows}</tbody></table>",
        "<ul><li>one<li><a href=x>two</a></ul>" * 300,
        "<div><p>not closed</div>" * 600,
        "<p>not closed" * 600,
        f"<div>{icon}{script}</div>" * 300,
        "<dl><dt>a<dd>b</dl><select><option>a<option>b</select>" * 300,
    ):
        assert flattened(page) == page


def test_a_page_that_is_rewritten_keeps_its_text_and_its_blocks() -> None:
    article = "<h1>Title</h1><p>One <b>bold</b> w<i>or</i>d.</p><ul><li>a<li>b</ul><table><tr><td>c<td>d</table>"
    script = "<script>no()</script><!-- no --><svg><path/></svg>"
    page = f"<html><head><title>T</title></head><body>{article}{script}{'<div></x>' * 1000}deep</body></html>"
    safe = flattened(page)
    assert safe.startswith(
        "<html><head><title>T</title><body><h1>Title</h1><p>One bold word.</p><ul><li>a</li><li>b</li></ul>"
        "<table><tr><td>c</td><td>d</td></tr></table><div><div>"
    )
    assert safe.count("<div>") == MAX_DEPTH and safe.rstrip().endswith("deep") and "no" not in safe
    assert page_text(page, main_content=False).title == "T"
