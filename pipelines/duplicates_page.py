"""The page of `gristmill duplicates`: one HTML file that needs no server, no script and no other file."""

from __future__ import annotations

from typing import Any

from pipelines.core.page import environment

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2126; --dim: #5a6570; --page: #fff; --card: #f4f6f8; --line: #d5dbe1;
  --bar: #1971c2; --kept: #2b8a3e; --gone: #c92a2a; --plate: #9c5700; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e7eb; --dim: #9aa5b1; --page: #14171a; --card: #1e2327;
  --line: #363d45; --bar: #4dabf7; --kept: #69db7c; --gone: #ff8787; --plate: #ffc078; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "Noto Sans", sans-serif; }
:lang(zh) { font-family: system-ui, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "Noto Sans SC", sans-serif; }
h1 { margin: 0; } h2 { margin: 2.5rem 0 .5rem; } p { margin: .5rem 0; } .dim { color: var(--dim); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .75rem; }
dl div { background: var(--card); padding: .6rem .8rem; border-radius: .4rem; }
dt { color: var(--dim); font-size: .85rem; } dd { margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .6rem; text-align: end; white-space: nowrap; }
thead th { border-bottom: 1px solid var(--line); }
th:first-child, th.name { text-align: start; font-weight: normal; } thead th { color: var(--dim); font-weight: normal; }
td.bar { width: 60%; min-width: 8rem; padding-inline: 0; } svg { display: block; width: 100%; height: .9rem; }
rect { fill: var(--bar); }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .5rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; overflow-wrap: anywhere; } summary b { font-variant-numeric: tabular-nums; }
blockquote { margin: .3rem 0 .8rem; padding: .4rem .8rem; background: var(--card); overflow-wrap: anywhere; }
.id { overflow-wrap: anywhere; } .kept { color: var(--kept); } .removed { color: var(--gone); }
.plate { color: var(--plate); border: 1px solid; border-radius: .3rem; padding: 0 .35rem; font-size: .85rem; }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Duplicates</title>
<style>{{ style|safe }}</style>
</head>
<body>
{% macro bars(rows, name, value, heads) %}
<div class="scroll"><table>
<thead><tr>{% for head in heads %}<th scope="col">{{ head }}</th>{% endfor %}</tr></thead>
<tbody>
{% set most = rows|map(attribute=value)|max %}
{% for row in rows %}
<tr><th scope="row" dir="auto">{{ row[name] }}</th><td class="bar"><svg viewBox="0 0 1000 10" \
preserveAspectRatio="none" aria-hidden="true"><rect width="{{ row[value]|width(most) }}" height="10"/></svg></td>\
<td>{{ row[value]|number }}</td>{{ caller(row) }}</tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
{% macro cluster(row) %}
<details>
<summary><b>{{ row.size|number }}</b> members, {{ row.kept|number }} kept
{%- if row.similarity %}, similarity {{ row.similarity|span }}{% endif %},
{% for name, n in row.sources.items() %}<bdi>{{ name }}</bdi> {{ n|number }}{{ ", " if not loop.last }}{% endfor %}
{% if row.against %} and {{ row.against|number }} of --against{% endif %}
{% if row.boilerplate %} <span class="plate">boilerplate: {{ row.boilerplate }}</span>{% endif %}</summary>
<p class="dim">Median member: {{ row.median_characters|number }} characters, {{ row.median_shingles|number }} distinct
shingles, {{ row.core|percent }} of them in the core; {{ row.own|percent }} of the members have a content of their own
{%- if row.against %} (measured without those of --against){% endif %}.
Cluster <code class="id">{{ row.cluster }}</code></p>
{% for one in row.examples %}
<p><span class="{{ one.action }}">{{ one.action }}</span>{% if one.similarity is not none %} at similarity
{{ one.similarity|round4 }}{% if one.similarity_error %} ± {{ one.similarity_error|round4 }}{% endif %}
{%- endif %}: <bdi>{{ one.source }}</bdi>,
<bdi class="id">{{ one.locator or one.id }}</bdi></p>
{% if one.excerpt is not none %}
<blockquote dir="auto" lang="{{ one.excerpt|language }}">{{ one.excerpt }}</blockquote>
{% endif %}
{% endfor %}
{% if row.size > row.examples|length %}
<p class="dim">{{ (row.size - row.examples|length)|number }} more members are not shown.</p>
{% endif %}
{% if row.kept_locators|length > 1 %}
<p>Kept: {% for one in row.kept_locators %}<bdi class="id">{{ one }}</bdi>{{ ", " if not loop.last }}{% endfor %}
{%- if row.kept > row.kept_locators|length %} and {{ (row.kept - row.kept_locators|length)|number }} more{% endif %}</p>
{% endif %}
</details>
{% endmacro %}
<h1>Duplicates</h1>
<p class="dim">What dedupe removed, and for which records it was kept in their place. Similarity is the Jaccard
similarity of sets of shingles ({{ config.shingle_size }} tokens each: words, or single characters of scripts without
spaces), measured between each removed record and the kept one that it names; at least {{ config.threshold }}.
Of records of many shingles it is estimated; the standard error stands behind ±.</p>
<dl>
<div><dt>records compared</dt><dd>{{ totals.documents|number }}</dd></div>
<div><dt>removed</dt><dd>{{ totals.removed|number }} ({{ totals.removed|share(totals.documents) }})</dd></div>
<div><dt>characters removed</dt><dd>{{ totals.removed_characters|share(totals.characters) }}</dd></div>
<div><dt>exact copies</dt><dd>{{ totals.exact|number }}</dd></div>
<div><dt>near copies</dt><dd>{{ totals.near|number }}</dd></div>
<div><dt>kept in another source</dt><dd>{{ totals.across_sources|number }}</dd></div>
<div><dt>clusters</dt><dd>{{ totals.clusters|number }}</dd></div>
<div><dt>boilerplate clusters</dt><dd>{{ totals.boilerplate_clusters|number }}</dd></div>
</dl>
{% if totals.removed == 0 %}<p>Nothing was removed.</p>{% endif %}

<h2>Similarity of removed records</h2>
<p class="dim">Each bin holds what lies from its value up to the next one; the last also holds equal sets of shingles.
Exact copies (equal content) stand apart.</p>
{% call(row) bars(similarities, "similarity", "records", ["similarity", "", "records"]) %}{% endcall %}

<h2>Sizes of clusters</h2>
<p class="dim">A cluster is what verified similarities join, the kept records included.</p>
{% call(row) bars(sizes, "size", "clusters", ["members", "", "clusters", "records"]) %}\
<td>{{ row.records|number }}</td>{% endcall %}

{% if pairs %}
<h2>Which sources overlap</h2>
<p class="dim">Removed source → source of the record kept in its place.</p>
{% call(row) bars(pairs[:100], "pair", "records", ["removed → kept", "", "records", "exact", "near", "characters"]) %}\
<td>{{ row.exact|number }}</td><td>{{ row.near|number }}</td><td>{{ row.characters|number }}</td>{% endcall %}
{% if pairs|length > 100 %}<p>{{ (pairs|length - 100)|number }} more pairs are in pairs.csv.</p>{% endif %}
{% endif %}

<h2>Sources</h2>
<div class="scroll"><table>
<thead><tr><th scope="col">source</th><th scope="col">records</th><th scope="col">removed</th><th scope="col">share</th>
<th scope="col">exact</th><th scope="col">near</th><th scope="col">characters</th>
<th scope="col">removed</th><th scope="col">share</th></tr></thead>
<tbody>
{% for row in sources %}
<tr><th scope="row" dir="auto">{{ row.source }}</th><td>{{ row.documents|number }}</td>\
<td>{{ row.removed|number }}</td>\
<td>{{ row.removed|share(row.documents) }}</td><td>{{ row.exact|number }}</td><td>{{ row.near|number }}</td>\
<td>{{ row.characters|number }}</td><td>{{ row.removed_characters|number }}</td>\
<td>{{ row.removed_characters|share(row.characters) }}</td></tr>
{% endfor %}
</tbody></table></div>

<h2>Boilerplate</h2>
<p class="dim">A cluster is marked where it has at least {{ rule.members }} members and either its median member has
fewer than {{ rule.shingles }} distinct shingles (“short”), or shingles that 90 % of the members hold (the core) make
up at least {{ rule.core|percent }} of the median member while at least {{ rule.own|percent }} of the members have a
content of their own: one form filled in anew each time (“template”). Such records are alike without being copies: look
at the excerpts before you trust the removals, and raise the threshold or cut the template where they should stay.</p>
<p>{{ totals.boilerplate_clusters|number }} clusters of {{ totals.boilerplate_records|number }} records
{%- if boilerplate %}, the largest:{% else %}.{% endif %}</p>
{% for row in boilerplate %}{{ cluster(row) }}{% endfor %}

<h2>Largest clusters</h2>
{% if not has_text %}<p>The documents were not found: no excerpts. Name their directories with
<code>--documents</code>.</p>{% endif %}
{% for row in clusters %}{{ cluster(row) }}{% endfor %}
</body>
</html>
"""


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def render(**values: Any) -> str:
    """Make the page from the values that `pipelines.duplicates.write` gathers; every text is escaped."""
    template = environment(
        share=_share,
        percent=lambda value: f"{value:.0%}",
        round4=lambda value: f"{value:.4f}",
        span=lambda pair: f"{pair[0]:.2f} to {pair[1]:.2f}",
    ).from_string(_PAGE)
    return template.render(style=_STYLE, **values)
