"""Words that a user's list forbids: C4's page rule (Raffel et al. 2020, section 2.2). The list is the user's own.

A word or phrase counts where no letter, digit or underscore stands on either side of it, case aside; of a script
without spaces between words wherever it stands. As in c4_utils.py (TensorFlow Datasets) and datatrove.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.text.unicode import Class, tables

DOCS = {"bad_words": "1 where a word or phrase of the list bad_words occurs"}
_ESCAPED = frozenset("\\.+*?()|[]{}^$")
_EDGE = r"[^\pL\pM\pN_]"


def parse(raw: bytes) -> tuple[str, ...]:
    """Read a list: UTF-8, one word or phrase a line; blank lines do not count. ValueError where it is another encoding
    or has no word."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"the list of bad words is not UTF-8: {error}") from error
    words = sorted({word for line in text.splitlines() if (word := " ".join(line.split()).lower())})
    if not words:
        raise ValueError("the list of bad words is empty")
    return tuple(words)


def holds(texts: pa.Array, words: Sequence[str]) -> np.ndarray:
    """Find texts with a bad word, in a string or large_string array, a null as "": float64[n], 1 or 0.

    Linear in the text (RE2). words: as `parse` gives them.
    """
    classes = tables().classes
    joined = [word for word in words if any(classes[ord(char)] == Class.CHARACTER for char in word)]
    spaced = [word for word in words if word not in joined]
    patterns = [f"(?:^|{_EDGE})(?:{_either(spaced)})(?:$|{_EDGE})"] if spaced else []
    patterns += [_either(joined)] if joined else []
    lowered, found = pc.utf8_lower(texts.fill_null("")), np.zeros(len(texts), np.bool_)
    for pattern in patterns:
        found |= pc.match_substring_regex(lowered, pattern=pattern).to_numpy(zero_copy_only=False)
    return found.astype(np.float64)


def _either(words: Sequence[str]) -> str:
    return "|".join("".join("\\" + char if char in _ESCAPED else char for char in word) for word in words)
