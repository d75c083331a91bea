"""The page of `gristmill sheet`: one HTML file that holds its images; it needs no server, no script, no other file."""

from __future__ import annotations

import base64
import io
import re
import warnings
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from pipelines.core.page import environment
from pipelines.core.texts import excerpt

SIDE = 192  # pixels of the longer side of an image on the page: it is shown at about 140, and screens have more
_LOSSLESS = 32  # images up to this side are shown pixel by pixel
_MOST = 12_000  # bytes of one image on the page; an ordinary photo has 5,000
_QUALITIES = (75, 40, 10)  # of WebP; at 10, 192 × 192 pixels of noise have 9,000 bytes
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
# Marks of direction, and the deprecated format characters, that `excerpt` leaves in: they have no width.
_MARKS = re.compile(r"[\u061c\u200e\u200f\u206a-\u206f]+")


class Preview(NamedTuple):
    """An image on the page: its `data:` URI; whether it is so small that its pixels are shown; whether it has holes."""

    uri: str
    tiny: bool
    alpha: bool


def preview(data: bytes) -> Preview | None:
    """Make what the page shows of an encoded image.

    Always WebP, made anew from the decoded pixels: nothing of the file's own bytes or metadata is on the page. At most
    SIDE pixels a side and about 12,000 bytes. None where the image cannot be decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a large image is reduced here, and a bomb beyond Pillow's limit raises
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                tiny = max(image.size) <= _LOSSLESS
                small = _eight_bits(image)
                small.thumbnail((SIDE, SIDE))
    except Exception:  # whatever a decoder may raise: the page says that it cannot be shown
        return None
    small.info = {}
    found = b""
    for quality in _QUALITIES:
        sink = io.BytesIO()
        small.save(sink, "WEBP", lossless=tiny, quality=quality, method=4)
        found = sink.getvalue()
        if tiny or len(found) <= _MOST:
            break
    return Preview(f"data:image/webp;base64,{base64.b64encode(found).decode()}", tiny, small.mode == "RGBA")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Decode to RGB or RGBA; of a large JPEG only as much as is needed."""
    if image.format == "JPEG":
        image.draft(None, (2 * SIDE, 2 * SIDE))
    if image.mode.startswith("I"):  # 16 bits: Pillow's own conversion clips them
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


_STYLE = """
:root { color-scheme: light dark; --ink: #1d2126; --dim: #56616c; --page: #fff; --card: #f4f6f8; --line: #d5dbe1;
  --bar: #1971c2; --kept: #237032; --removed: #c92a2a; --check: #e3e7eb; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e7eb; --dim: #9aa5b1; --page: #14171a; --card: #1e2327;
  --line: #363d45; --bar: #4dabf7; --kept: #69db7c; --removed: #ff8787; --check: #2b3138; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 84rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "Noto Sans", sans-serif; }
:lang(zh) { font-family: system-ui, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "Noto Sans SC", sans-serif; }
h1 { margin: 0; } h2 { margin: 3rem 0 .5rem; } h3 { margin: 1.5rem 0 .4rem; overflow-wrap: anywhere; }
h4 { margin: 1rem 0 .3rem; font-weight: 600; color: var(--dim); } p { margin: .5rem 0; max-width: 60rem; }
.dim { color: var(--dim); }
a { color: var(--bar); } :focus-visible { outline: 3px solid var(--bar); outline-offset: 2px; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0; margin: 1rem 0; list-style: none; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; }
dl div { background: var(--card); padding: .6rem .8rem; border-radius: .4rem; }
dt { color: var(--dim); font-size: .85rem; } dd { margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } table.wide { width: 100%; }
th, td { padding: .15rem .6rem; text-align: end; white-space: nowrap; }
thead th { border-bottom: 1px solid var(--line); color: var(--dim); font-weight: normal; }
th:first-child, th.name, td.name { text-align: start; font-weight: normal; }
td.text { text-align: start; white-space: normal; overflow-wrap: anywhere; min-width: 12rem; }
td.bar { width: 55%; min-width: 8rem; padding-inline: 0; } svg { display: block; width: 100%; height: .9rem; }
rect { fill: var(--bar); }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.75rem, 1fr)); gap: .75rem; margin: 0;
  padding: 0; list-style: none; }
.grid > li { display: contents; }
figure { margin: 0; padding: .4rem; background: var(--card); border-radius: .4rem; border-top: 3px solid var(--line);
  min-width: 0; }
figure.kept { border-top-color: var(--kept); } figure.removed { border-top-color: var(--removed); }
.pic { display: grid; place-items: center; aspect-ratio: 1; overflow: hidden; border-radius: .2rem; }
.alpha { background: repeating-conic-gradient(var(--check) 0 25%, transparent 0 50%) 0 0 / 16px 16px; }
.pic img { display: block; width: 100%; height: 100%; object-fit: contain; } .tiny img { image-rendering: pixelated; }
.pic span { padding: .5rem; color: var(--dim); font-size: .85rem; text-align: center; background: var(--card); }
figcaption { margin-top: .35rem; font-size: .8rem; line-height: 1.35; overflow-wrap: anywhere; }
figcaption > * { display: block; } figcaption b { font-weight: 600; }
.state { font-weight: 600; } .kept .state { color: var(--kept); } .removed .state { color: var(--removed); }
.stars { display: flex; flex-wrap: wrap; gap: .75rem; }
.star { border: 1px solid var(--line); border-radius: .4rem; padding: .6rem; min-width: 0; }
.star p { margin: 0 0 .2rem; font-size: .85rem; }
.star .grid { display: flex; flex-wrap: wrap; } .star figure { width: 8.25rem; }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .5rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; overflow-wrap: anywhere; } code { overflow-wrap: anywhere; }
@media print { figure, .star { break-inside: avoid; } }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
base-uri 'none'; form-action 'none'">
<meta name="referrer" content="no-referrer">
<title>Images</title>
<style>{{ style|safe }}</style>
</head>
<body>
{% macro bars(rows, name, value, heads) %}
<div class="scroll"><table class="wide">
<thead><tr>{% for head in heads %}<th scope="col">{{ head }}</th>{% endfor %}</tr></thead>
<tbody>
{% set most = rows|map(attribute=value)|max %}
{% for row in rows %}
<tr><th scope="row" dir="auto" lang="{{ row[name]|language }}">{{ row[name]|line }}</th><td class="bar">\
<svg viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true">\
<rect width="{{ row[value]|width(most) }}" height="10"/></svg></td>\
<td>{{ row[value]|number }}</td>{{ caller(row) }}</tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
{% macro tile(one) %}
<li><figure class="{{ one.state }}"><div class="pic{{ " tiny" if one.tiny }}{{ " alpha" if one.alpha }}">
{%- if one.uri %}<img src="{{ one.uri }}" alt="{{ one.alt|line }}" decoding="async">
{%- else %}<span>{{ one.missing }}</span>{% endif %}</div>
<figcaption><span class="state">{{ one.state }}{{ ": " ~ one.why if one.why }}</span>
{% if one.label %}<b dir="auto" lang="{{ one.label|language }}">{{ one.label|line }}</b>{% endif %}
{% if one.caption %}<span dir="auto" lang="{{ one.caption|language }}">{{ one.caption|line }}</span>{% endif %}
{% if one.size %}<span>{{ one.size }}</span>{% endif %}
<span class="dim" dir="auto" lang="{{ one.locator|language }}">{{ one.locator|line }}</span></figcaption></figure></li>
{% endmacro %}
{% macro grid(tiles) %}<ul class="grid">
{% for one in tiles %}{{ tile(one) }}{% endfor %}
</ul>{% endmacro %}
{% macro clusters(rows) %}
<div class="stars">
{% for row in rows %}
<div class="star"><p>{{ row.size|number }} members, {{ row.removed|number }} removed
{%- if row.shown < row.removed %} ({{ row.shown|number }} shown){% endif %}</p>
<p><code class="dim">{{ row.cluster }}</code></p>
{{ grid(row.tiles) }}</div>
{% endfor %}
</div>
{% endmacro %}
<header>
<h1>Images</h1>
<p class="dim">What became of the images of a corpus, by example. Images are chosen by a hash of their ids: the same
ones each time, and without favour. This page holds its images itself and loads nothing.</p>
<dl>
{% for name, value in totals %}
<div><dt>{{ name }}</dt><dd>{{ value|number }}</dd></div>
{% endfor %}
</dl>
<nav aria-label="Sections"><ul>
<li><a href="#kept">Kept</a></li><li><a href="#rules">Removed by rules</a></li>
<li><a href="#duplicates">Duplicates</a></li><li><a href="#rejected">Not decoded</a></li>
<li><a href="#books">Books</a></li><li><a href="#labels">Labels</a></li><li><a href="#sizes">Sizes</a></li>
<li><a href="#signals">Signals</a></li>
</ul></nav>
</header>
<main>
<section aria-labelledby="kept">
<h2 id="kept">Kept</h2>
{% for group in kept %}
<h3><bdi lang="{{ group.source|language }}">{{ group.source|line }}</bdi>: {{ group.count|number }} images</h3>
{{ grid(group.tiles) }}
{% else %}<p>No image was kept.</p>
{% endfor %}
{% if more_sources %}<p>{{ more_sources|number }} more sources are not shown.</p>{% endif %}
</section>

<section aria-labelledby="rules">
<h2 id="rules">Removed by rules</h2>
{% if rules %}<p class="dim">An image is removed by the first rule that it breaks. The score is what was measured, the
limit is what the rule compares it with.</p>{% else %}<p>No rule removed an image.</p>{% endif %}
{% for rule in rules %}
<h3><code>{{ rule.reason|line }}</code>: {{ rule.count|number }} images</h3>
{% if rule.border %}
<h4>Closest to the limit, on both sides of it</h4>
{{ grid(rule.border) }}
{% endif %}
{% if rule.tiles %}
<h4>{{ "Others" if rule.border else "Examples" }}</h4>
{{ grid(rule.tiles) }}
{% endif %}
{% endfor %}
{% if more_rules %}<p>{{ more_rules|number }} more rules removed images that are not shown.</p>{% endif %}
</section>

<section aria-labelledby="duplicates">
<h2 id="duplicates">Duplicates</h2>
{% if not deduplicated %}<p>Name an output of dedupe with <code>--duplicates</code> to see what it removed.</p>
{% elif not similarities %}<p>No image was removed as a duplicate.</p>
{% else %}
<p class="dim">Beside each image that was kept stand those that were removed in its favour, with their measured
similarity to it, the least similar first. Look there for images that are no copies.</p>
{% for name, title in cluster_titles %}
{% if clusters_of[name] %}<h3>{{ title }}</h3>{{ clusters(clusters_of[name]) }}{% endif %}
{% endfor %}
<h3>Similarity of removed images</h3>
<p class="dim">Each bin holds what lies from its value up to the next one. Equal bytes or pixels stand apart.</p>
{% call(row) bars(similarities, "similarity", "images", ["similarity", "", "images"]) %}{% endcall %}
{% endif %}
</section>

<section aria-labelledby="rejected">
<h2 id="rejected">Not decoded</h2>
{% if not rejected %}<p>Every image could be decoded.</p>{% endif %}
{% for group in rejected %}
<details{{ " open" if loop.first }}><summary><code>{{ group.reason|line }}</code> ({{ group.stage|line }}):
{{ group.count|number }} records</summary>
<div class="scroll"><table class="wide">
<thead><tr><th scope="col">source</th><th class="name" scope="col">where</th><th class="name" scope="col">detail</th>
</tr></thead><tbody>
{% for row in group.rows %}
<tr><td class="name"><bdi lang="{{ row.source|language }}">{{ row.source|line }}</bdi></td>
<td class="text" dir="auto" lang="{{ row.locator|language }}">{{ row.locator|line }}</td>
<td class="text" dir="auto">{{ (row.detail or "")|line }}</td></tr>
{% endfor %}
</tbody></table></div></details>
{% endfor %}
</section>

<section aria-labelledby="books">
<h2 id="books">Books</h2>
<p class="dim">Of every stage and source: records in = kept + removed + rejected.</p>
<div class="scroll"><table>
<thead><tr><th scope="col">stage</th><th class="name" scope="col">source</th><th scope="col">in</th>\
<th scope="col">kept</th><th scope="col">removed</th><th scope="col">rejected</th></tr></thead>
<tbody>
{% for row in books %}
<tr><th scope="row">{{ row.stage|line }}</th><td class="name"><bdi lang="{{ row.source|language }}">\
{{ row.source|line }}</bdi></td><td>{{ row.in|number }}</td><td>{{ row.kept|number }}</td>\
<td>{{ row.removed|number }}</td><td>{{ row.rejected|number }}</td></tr>
{% endfor %}
</tbody></table></div>
{% if removals %}
<h3>Reasons</h3>
{% call(row) bars(removals, "reason", "images", ["reason", "", "images", "stage", "action"]) %}\
<td>{{ row.stage|line }}</td><td>{{ row.action|line }}</td>{% endcall %}
{% endif %}
</section>

<section aria-labelledby="labels">
<h2 id="labels">Labels</h2>
{% if labels %}
{% call(row) bars(labels[:100], "label", "kept", ["label", "", "kept", "removed", "duplicates"]) %}\
<td>{{ row.removed|number }}</td><td>{{ row.duplicates|number }}</td>{% endcall %}
{% if labels|length > 100 %}<p>{{ (labels|length - 100)|number }} more are in labels.csv.</p>{% endif %}
{% else %}<p>The images have no labels.</p>{% endif %}
</section>

<section aria-labelledby="sizes">
<h2 id="sizes">Sizes</h2>
<p class="dim">Width × height in pixels as the images were read, turned upright.</p>
{% if sizes %}
{% call(row) bars(sizes, "size", "images", ["width × height", "", "images", "kept"]) %}\
<td>{{ row.kept|number }}</td>{% endcall %}
{% endif %}
</section>

<section aria-labelledby="signals">
<h2 id="signals">Signals</h2>
{% if signals %}
<p class="dim">Quantiles of what clean measured, over {{ measured|number }} images: those that a rule removed too.</p>
<div class="scroll"><table>
<thead><tr><th scope="col">signal</th>{% for one in quantiles %}<th scope="col">{{ one }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in signals %}
<tr><th scope="row"><code>{{ row.signal|line }}</code></th>\
{% for one in row.quantiles %}<td>{{ one|score }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% else %}<p>No signals were measured.</p>{% endif %}
</section>
</main>
</body>
</html>
"""


def line(text: str) -> str:
    """The first 240 characters on one line, without control characters and those that turn the direction of text."""
    return excerpt(_MARKS.sub("", text))


def score(value: float, digits: int = 4) -> str:
    """Write a measured value with so many digits, and with all that stand before the point."""
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:,.{digits}g}"


def against(value: float, limit: float) -> str:
    """Write a score beside its limit, with as many digits as tell them apart."""
    digits = next((n for n in range(4, 17) if value == limit or score(value, n) != score(limit, n)), 17)
    return f"{score(value, digits)}, limit {score(limit)}"


def render(**values: Any) -> str:
    """Make the page from the values that `pipelines.sheet.write` gathers; every text is escaped, and on one line."""
    return environment(line=line, score=score).from_string(_PAGE).render(style=_STYLE, **values)
