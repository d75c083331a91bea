from pydoc_data.topics import topics

import numpy as np
import pyarrow as pa
import pytest

from pipelines.text import fertility
from pipelines.text.sentencepiece import Tokenizer, TrainConfig, plain_spaces, train
from pipelines.text.unicode import SCRIPTS, tables, utf8
from pipelines.text.words import word_starts

CHINESE = "天地玄黃宇宙洪荒，北京大学在中国。"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train(pa.array([*list(topics.values())[:20], *[CHINESE] * 20]), TrainConfig(vocab_size=1000)))


def test_counts_of_sources_and_scripts_by_hand(tokenizer: Tokenizer) -> None:
    texts = ["the name", "北京大学。", "ж"]
    counts = fertility.measure(pa.array(texts), pa.array(["en", "zh", "ru"]), tokenizer)
    encoded = tokenizer.encode(pa.array(texts))
    english, chinese, russian = np.diff(encoded.offsets).tolist()
    assert counts["source/en"] == {
        "documents": 1,
        "bytes": 8,
        "words": 2,
        "tokens": english,
        "byte_tokens": 0,
        "unknown": 0,
        "round_trips": 1,
    }
    assert counts["source/zh"]["words"] == 2  # 北京大学 and 。
    assert counts["source/zh"]["tokens"] == chinese
    # ж was not in the sample: two bytes, two byte tokens, one Cyrillic word
    assert russian == 2
    assert counts["script/cyrillic"] == {"bytes": 2, "words": 1, "tokens": 2, "byte_tokens": 2, "unknown": 0}
    assert counts["script/common"] == {"bytes": 3, "words": 1, "tokens": 1, "byte_tokens": 0, "unknown": 0}
    assert counts["script/han"]["bytes"] == 12
    assert counts["script/latin"]["tokens"] == english


def test_scripts_and_sources_count_the_same_tokens_words_and_bytes(tokenizer: Tokenizer) -> None:
    texts = pa.array([*list(topics.values())[20:40], CHINESE, "", "🙂 ▁ x\u3000\n", "한국어 ж"])
    sources = pa.array([f"s{i % 3}" for i in range(len(texts))])
    counts, plain = fertility.measure(texts, sources, tokenizer), plain_spaces(texts)
    for name in ("tokens", "words", "byte_tokens"):
        by_source, by_script = (
            sum(one[name] for key, one in counts.items() if key.startswith(kind)) for kind in ("source/", "script/")
        )
        assert by_source == by_script, name
    assert sum(one["words"] for key, one in counts.items() if key.startswith("source/")) == word_starts(plain).sum()
    assert sum(one["bytes"] for key, one in counts.items() if key.startswith("script/")) == len(
        "".join(plain.to_pylist()).encode()
    )
    lost = sum(one["documents"] - one["round_trips"] for key, one in counts.items() if key.startswith("source/"))
    assert lost == 1  # the text with "▁"


def test_parts_add_up_to_the_whole(tokenizer: Tokenizer) -> None:
    texts, sources = pa.array(["the name", CHINESE, "ж x"]), pa.array(["a", "b", "a"])
    parts = [fertility.measure(texts[i : i + 1], sources[i : i + 1], tokenizer) for i in range(3)]
    assert fertility.add(parts) == fertility.add([fertility.measure(texts, sources, tokenizer)])
    assert fertility.add([]) == {}


def test_a_span_has_the_script_of_its_first_character_with_one() -> None:
    text = " 「天abc」12ж"
    data, _ = utf8(pa.array([text]))
    characters = np.cumsum([0, *(len(c.encode()) for c in text)])
    edges = characters[[0, 2, 3, 6, 7, 9, 10]]
    names = [SCRIPTS[i] for i in fertility.span_scripts(data, edges, tables().info)]
    assert names == ["common", "han", "latin", "common", "common", "cyrillic"]
    inside = np.array([characters[2] + 1, characters[2] + 2, characters[3]])
    assert [SCRIPTS[i] for i in fertility.span_scripts(data, inside, tables().info)] == ["han", "han"]


def test_rates_by_hand() -> None:
    counts = {"tokens": 30, "words": 20, "bytes": 90, "unknown": 0, "byte_tokens": 3, "documents": 4, "round_trips": 3}
    assert fertility.rates(counts) == {
        "fertility": 1.5,
        "bytes_per_token": 3.0,
        "unknown_rate": 0.0,
        "byte_rate": 0.1,
        "round_trip_rate": 0.75,
    }
    assert fertility.rates({"tokens": 0, "words": 0, "bytes": 0}) == {}
