"""Data files: what a spreadsheet makes of them, and that numbers stay numbers."""

import pytest

from pipelines.core.plots import csv_bytes


@pytest.mark.parametrize(
    "text", ['=HYPERLINK("http://x")', "+1+cmd|' /C calc'!A0", "-1+1", "@SUM(A1)", "\t=1", "-", "-猫", "'=1"]
)
def test_no_text_is_a_formula(text: str) -> None:
    shown = text if text.startswith("'") else f"'{text}"
    quoted = '"' + shown.replace('"', '""') + '"' if any(one in shown for one in '",') else shown
    assert csv_bytes([{"label": text, "n": 1}], ["label", "n"]) == f"label,n\n{quoted},1\n".encode()


def test_a_carriage_return_begins_no_row() -> None:
    assert csv_bytes([{"label": "\r=1"}, {"label": "a\r=1"}], ["label"]) == b"label\n' =1\na =1\n"


def test_numbers_and_other_texts_stay_as_they_are() -> None:
    row = {"a": -1.5, "b": "-0.25", "c": "+7", "d": None, "e": "a=b", "f": "猫 -1", "g": "-inf", "h": ""}
    assert csv_bytes([row], list(row)) == "a,b,c,d,e,f,g,h\n-1.5,-0.25,+7,,a=b,猫 -1,-inf,\n".encode()
