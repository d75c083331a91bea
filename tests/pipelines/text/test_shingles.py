from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.text.shingles import shingle_hash, shingle_hashes, shingles, sort_distinct, tokens

ALPHABET = "aZéßİ19 ٣.,-_\n中文，コｶーกั한яक्\u0301\u200d\u00ad\ufe0f❤😀①Ⅳ\u0345\ue000\x00"
TEXTS = st.text(st.one_of(st.sampled_from(ALPHABET), st.characters(codec="utf-8")), max_size=80)


def by_definition(text: str, size: int) -> list[int]:
    return sorted({shingle_hash(shingle) for shingle in shingles(text, size)})


def rows(hashes: np.ndarray, offsets: np.ndarray) -> list[list[int]]:
    return [hashes[a:b].tolist() for a, b in pairwise(offsets)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't STOP, co-operate_now!", ["don", "t", "stop", "co", "operate", "now"]),
        ("我爱GDP增长6.5％", ["我", "爱", "gdp", "增", "长", "6", "5"]),
        ("スーパーｶﾞ", ["ス", "ー", "パ", "ー", "ｶ", "ﾞ"]),
        ("กำลังดี", ["ก", "ำ", "ลั", "ง", "ดี"]),
        ("ខ្មែរ", ["ខ្", "មែ", "រ"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("Straße ẞ İ", ["straße", "ß", "İ"]),
        ("co\u00adop \u0645\u06cc\u200c\u062e", ["coop", "\u0645\u06cc\u062e"]),
        ("葛\U000e0100", ["葛"]),
        ("\u0301 ❤\ufe0f 😀", []),
        ("", []),
    ],
)
def test_tokens_by_script(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


def test_a_shingle_is_five_tokens_and_a_short_text_is_one_shingle() -> None:
    assert shingles("a b c d e f") == ["a b c d e", "b c d e f"]
    assert shingles("a b c") == ["a b c"]
    assert shingles("天地玄黄宇宙", 5) == ["天 地 玄 黄 宇", "地 玄 黄 宇 宙"]
    assert shingles("...") == []


def test_hashes_never_change_between_versions() -> None:
    assert [shingle_hash(s) for s in ("a", "the quick brown fox jumps", "天 地 玄 黄 宇")] == [
        86612503,
        2904992024,
        199180168,
    ]


def test_bytes_and_text_hash_alike() -> None:
    assert shingle_hash("天 地".encode()) == shingle_hash("天 地")


@given(st.lists(TEXTS, max_size=5), st.integers(1, 9))
def test_the_kernel_equals_the_definition(texts: list[str], size: int) -> None:
    assert rows(*shingle_hashes(pa.array(texts, pa.string()), size)) == [by_definition(text, size) for text in texts]


@pytest.mark.parametrize("corpus", ["wikipedia_en", "wikipedia_zh", "documentation_versions", "poetry_zh"])
def test_the_kernel_equals_the_definition_on_real_text(
    corpus: str, real_texts: Callable[[str, int], list[str]]
) -> None:
    texts = real_texts(corpus, 80_000)
    for text, found in zip(texts, rows(*shingle_hashes(pa.array(texts))), strict=True):
        assert found == by_definition(text, 5), text[:80]


def test_slices_nulls_and_large_strings() -> None:
    texts = pa.array(["x", "one two", None, "中文", "y"], pa.large_string())
    assert rows(*shingle_hashes(texts.slice(1, 3), 1)) == [by_definition("one two", 1), [], by_definition("中文", 1)]
    assert rows(*shingle_hashes(pa.array([], pa.string()))) == []


def test_no_size_below_one() -> None:
    for function in (lambda: shingles("a", 0), lambda: shingle_hashes(pa.array(["a"]), 0)):
        with pytest.raises(ValueError, match="size=0"):
            function()


@given(st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 40), max_size=200))
def test_sorting_equals_numpy(values: list[int]) -> None:
    array = np.array(values, np.uint32)
    count = sort_distinct(array, np.empty_like(array))
    assert array[:count].tolist() == np.unique(np.array(values, np.uint32)).tolist()


@pytest.mark.parametrize("count", [49, 1000, 1 << 16, (1 << 16) + 1, 200_000])
@pytest.mark.parametrize("most", [3, 1 << 20, 1 << 32])
def test_sorting_of_many_values_equals_numpy_whatever_their_spread(count: int, most: int) -> None:
    values = np.random.default_rng(count).integers(0, most, count if most > 3 else 5000, dtype=np.uint32)
    expected = np.unique(values)
    assert sort_distinct(values, np.empty_like(values)) == len(expected)
    assert np.array_equal(values[: len(expected)], expected)


def test_every_bit_of_the_hash_depends_on_every_part_of_a_shingle() -> None:
    """Avalanche: one changed character, in any token, flips each of the 32 bits about half of the time."""
    flips = np.zeros((5, 32))
    trials = 2000
    for trial in range(trials):
        words = [f"{trial * 7919 + i:x}" for i in range(5)]
        before = shingle_hash(" ".join(words))
        for i in range(5):
            changed = [*words[:i], words[i][:-1] + chr(ord(words[i][-1]) ^ 1), *words[i + 1 :]]
            flipped = before ^ shingle_hash(" ".join(changed))
            flips[i] += [(flipped >> bit) & 1 for bit in range(32)]
    assert np.abs(flips / trials - 0.5).max() < 5 * 0.5 / np.sqrt(trials)


def test_order_and_borders_of_tokens_count() -> None:
    variants = ["a b c", "b a c", "c b a", "ab c", "a bc", "abc", "a b", "a b c c", "a a b c"]
    assert len({shingle_hash(variant) for variant in variants}) == len(variants)


def test_collisions_are_those_of_a_random_function() -> None:
    text = " ".join(str(i) for i in range(400_000))
    hashes, _ = shingle_hashes(pa.array([text]), 1)
    lost, expected = 400_000 - len(hashes), 400_000**2 / 2**33
    assert abs(lost - expected) < 6 * np.sqrt(expected)
