"""Signals, edits and overlap take time in proportion to the text, whatever is repeated in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from pipelines.text import edits, overlap, pages

GRAMS = overlap.grams_of(pa.array(["a b c d e f g h i j k l m n o p", "字" * 20]), 13, 8)
TASKS: dict[str, Callable[[pa.Array], Any]] = {
    "pages": lambda texts: pages.page_signals(texts, list(pages.GROUPS)),
    "edits": lambda texts: edits.edit(texts, edits.EDITS),
    "overlap": lambda texts: overlap.find(texts, GRAMS),
}
PUMPS = (
    *(
        "a",
        ".",
        "a.",
        "[",
        "[1",
        "[1]",
        "- ",
        "'",
        "n't",
        "#",
        "\n",
        "字",
        "-",
        "a-",
        "http://",
        "a@",
        "(",
        ")",
        "&",
        "&#",
    ),
    *("lorem ipsum ", "&amp;", "…", "\u0301", "1m", "a,", "sign-in ", "3 likes\n", "\u3000", ":)", "..a", "--a", "_"),
    "a b c d e f g h i j k l m n o p ",
)


@pytest.mark.parametrize("pump", PUMPS)
@pytest.mark.parametrize("name", TASKS)
def test_a_megabyte_of_anything_takes_linear_time(name: str, pump: str, linear_time: Callable[..., None]) -> None:
    linear_time(lambda size: TASKS[name](pa.array([pump * (size // len(pump.encode()))])), 1 << 20)
