import itertools
import json
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pyarrow as pa
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pipelines.text import hf_tokenizer, model_proto
from pipelines.text.model_proto import BYTE, NORMAL, Piece
from pipelines.text.sentencepiece import Tokenizer, TrainConfig, plain_spaces, train
from schemas.packed import SPECIAL_TOKENS

KINDS = ("unigram", "bpe")
CORPORA = ("wikipedia_en", "wikipedia_zh", "poetry_zh", "documentation_versions")
CHINESE = "天地玄黃，宇宙洪荒。日月盈昃，辰宿列張。我们的语言学习程序设计，北京大学在中国。床前明月光，疑是地上霜。"
AWKWARD = ["a", "e", "the", "Z", "0", "19", " ", "  ", "\n", "\t", ".", "--", "▁", "<0x0A>", "[UNK", "中", "天地", "。",
           "é", "e\u0301", "🙂", "\x00", "\ufffd", "\u3000", "\u2585", "한", "\r\n"]  # fmt: skip
TEXT = st.lists(st.one_of(st.sampled_from(AWKWARD), st.characters(codec="utf-8")), max_size=30).map("".join)


class Pair:
    """One model, read by SentencePiece and by transformers."""

    def __init__(self, model: bytes, directory: Path) -> None:
        for name, content in hf_tokenizer.files(model, 512).items():
            (directory / name).write_bytes(content)
        self.ours, self.theirs = Tokenizer(model), AutoTokenizer.from_pretrained(directory)

    def both(self, texts: list[str]) -> tuple[list[list[int]], list[list[int]]]:
        """Ids of each text by ours and by theirs; special tokens in the texts are text to both."""
        encoded = self.ours.encode(plain_spaces(pa.array(texts, pa.string())))
        ours = [encoded.ids[a:b].tolist() for a, b in itertools.pairwise(encoded.offsets)]
        backend = self.theirs.backend_tokenizer
        backend.encode_special_tokens = True
        theirs = [one.ids for one in backend.encode_batch_fast(texts, add_special_tokens=False)]
        backend.encode_special_tokens = False
        return ours, theirs


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    texts = pa.array([*list(topics.values())[:60], *[CHINESE[i:] for i in range(len(CHINESE))]])
    model = train(texts, TrainConfig(model=request.param, vocab_size=1200))
    return Pair(model, tmp_path_factory.mktemp(request.param))


@given(texts=st.lists(TEXT, max_size=3))
def test_ids_equal_on_any_text(pair: Pair, texts: list[str]) -> None:
    ours, theirs = pair.both(texts)
    assert ours == theirs


@given(text=TEXT)
def test_transformers_decodes_what_we_encode(pair: Pair, text: str) -> None:
    (ours,), _ = pair.both([text])
    assert pair.theirs.decode(ours) == pair.ours.decode(np.array(ours))


@pytest.mark.parametrize("kind", KINDS)
def test_ids_equal_on_ten_thousand_real_texts(
    kind: str, real_texts: Callable[[str, int], list[str]], tmp_path: Path
) -> None:
    sample = [text[:1000] for corpus in CORPORA for text in real_texts(corpus, 30_000_000)[:2500:10]]
    pair = Pair(train(pa.array(sample), TrainConfig(model=kind, vocab_size=8000)), tmp_path)
    whole = sentencepiece.SentencePieceProcessor(model_proto=pair.ours.model)
    for corpus in CORPORA:
        texts = [text if i % 50 == 0 else text[:1500] for i, text in enumerate(real_texts(corpus, 30_000_000)[:2500])]
        assert len(texts) == 2500
        ours, theirs = pair.both(texts)
        assert [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b] == []
        assert ours[::50] == whole.encode(texts[::50])


def test_specials_frame_texts_and_pairs(pair: Pair) -> None:
    assert isinstance(pair.theirs, PreTrainedTokenizerFast)
    (a,), _ = pair.both(["the 天地"])
    (b,), _ = pair.both(["x"])
    assert pair.theirs("the 天地").input_ids == [2, *a, 3]
    assert pair.theirs("the 天地", "x").input_ids == [2, *a, 3, *b, 3]
    assert pair.theirs(["the 天地", "x"], padding=True).input_ids[1][-1] == pair.theirs.pad_token_id == 0
    assert [pair.theirs.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]
    assert pair.theirs.model_max_length == 512


def test_a_mask_in_a_text_is_the_special_token_unless_asked_otherwise(pair: Pair) -> None:
    assert 4 in pair.theirs("the [MASK] of").input_ids
    (ours,), _ = pair.both(["the [MASK] of"])
    assert 4 not in ours
    assert pair.theirs("the [MASK] of", add_special_tokens=False, split_special_tokens=True).input_ids == ours


def test_decoding_gives_the_text_back_without_specials(pair: Pair) -> None:
    text = "    def f(x):\n\treturn  x  # 天地🙂\n\n"
    assert pair.theirs.decode(pair.theirs(text).input_ids, skip_special_tokens=True) == text


def test_saved_files_are_the_same_bytes_each_time_and_name_no_path(pair: Pair) -> None:
    first, second = (hf_tokenizer.files(pair.ours.model, 512) for _ in range(2))
    assert first == second
    assert sorted(first) == ["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]
    assert b"/" not in first["tokenizer_config.json"] + first["special_tokens_map.json"]


def test_merges_are_every_pair_that_makes_a_piece_best_first() -> None:
    scores = {"ab": 0.0, "abc": -1.0, "bc": -2.0, "a": -3.0, "b": -4.0, "c": -5.0}
    pieces = [Piece("<0x61>", 0.0, BYTE), *(Piece(text, score, NORMAL) for text, score in scores.items())]
    assert hf_tokenizer.merges(pieces) == [["a", "b"], ["ab", "c"], ["a", "bc"], ["b", "c"]]


def test_equal_pieces_that_overlap_are_merged_alike(pair: Pair) -> None:
    """Where xy = yz is one piece, SentencePiece takes the left one; tokenizers goes by the order of the merges."""
    texts = {piece.text for piece in pair.ours.pieces if piece.type == NORMAL}
    overlaps = {
        x + y + z
        for whole in texts
        for at in range(1, len(whole))
        for x, y in [(whole[:at], whole[at:])]
        for z in [whole[len(y) :]]
        if x in texts and y in texts and z in texts and whole.startswith(y)
    }
    runs = [text * n for text in ("-", "=", "a", ".", "ab", "aba", "哈") for n in range(1, 40)]
    ours, theirs = pair.both([text.replace("▁", " ") for text in sorted(overlaps)] + runs)
    assert len(overlaps) > 3
    assert ours == theirs


def test_literal_byte_names_never_become_bytes(pair: Pair) -> None:
    document = json.loads(hf_tokenizer.files(pair.ours.model, 512)["tokenizer.json"])
    assert document["model"]["byte_fallback"] is True
    ours, theirs = pair.both(["<0x0A>", "x<0xE4>y", "<unk>"])
    assert ours == theirs
    names = {i for i, piece in enumerate(model_proto.parse(pair.ours.model).pieces) if piece.type == BYTE}
    assert all(pair.ours.decode(np.array(ids)) != "\n" for ids in ours)
    assert 5 + 0x0A not in ours[0]
    assert len(names) == 256
