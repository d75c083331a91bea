import hashlib
import pickle
from collections.abc import Callable
from pydoc_data.topics import topics

import numpy as np
import pyarrow as pa
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from pipelines.text import model_proto, words
from pipelines.text.model_proto import BYTE, CONTROL, NORMAL, UNKNOWN, Piece
from pipelines.text.sentencepiece import (
    SCORE_GRID,
    WHITESPACE_PIECES,
    Tokenizer,
    TrainConfig,
    alphabet,
    plain_spaces,
    train,
    training_lines,
)
from schemas.packed import SPECIAL_TOKENS

CHINESE = """天地玄黃，宇宙洪荒。日月盈昃，辰宿列張。寒來暑往，秋收冬藏。閏餘成歲，律呂調陽。雲騰致雨，露結為霜。
床前明月光，疑是地上霜。舉頭望明月，低頭思故鄉。白日依山盡，黃河入海流。欲窮千里目，更上一層樓。
我们的语言学习程序设计，北京大学在中国。他们在学校学习中文和英文。今天天气很好，明天可能下雨。
"""
CORPUS = pa.array([*list(topics.values())[:60], *[CHINESE[i:] for i in range(0, len(CHINESE), 3)]])
KINDS = ("unigram", "bpe")
SMALL = {kind: TrainConfig(model=kind, vocab_size=1200) for kind in KINDS}
AWKWARD = "aeZ09 \n\t.,-▁▅<x>[]中國天。é\u0301🙂\x00\ufffd\u200b\u3000한"
TEXT = st.text(st.one_of(st.sampled_from(AWKWARD), st.characters(codec="utf-8")), max_size=60)


@pytest.fixture(scope="module")
def models() -> dict[str, bytes]:
    return {kind: train(CORPUS, SMALL[kind]) for kind in KINDS}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, models: dict[str, bytes]) -> Tokenizer:
    return Tokenizer(models[request.param])


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(pa.array([text])).ids.tolist()


def pieces_of(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.pieces[i].text for i in ids_of(tokenizer, text)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_corpus_gives_the_same_bytes_again(kind: str, models: dict[str, bytes]) -> None:
    assert hashlib.sha256(train(CORPUS, SMALL[kind])).hexdigest() == hashlib.sha256(models[kind]).hexdigest()


def test_ids_of_specials_bytes_and_white_space_are_fixed(tokenizer: Tokenizer) -> None:
    pieces = tokenizer.pieces
    assert tuple(piece.text for piece in pieces[:5]) == SPECIAL_TOKENS
    assert [piece.type for piece in pieces[:5]] == [CONTROL, UNKNOWN, CONTROL, CONTROL, CONTROL]
    assert [piece.text for piece in pieces[5:261]] == [f"<0x{byte:02X}>" for byte in range(256)]
    assert {piece.type for piece in pieces[5:261]} == {BYTE}
    assert tuple(piece.text for piece in pieces[261:272]) == WHITESPACE_PIECES
    assert {piece.type for piece in pieces[261:]} == {NORMAL}
    assert tokenizer.vocab_size == 1200
    assert len({piece.text for piece in pieces}) == 1200


def test_no_learned_piece_crosses_an_edge_of_spans(tokenizer: Tokenizer) -> None:
    """The whole encoding stands on it: texts are cut before spaces and around line feeds, and encoded in parts."""
    for piece in tokenizer.pieces[272:]:
        assert "▁" not in piece.text[1:], piece
        assert not set(piece.text) & set(" \n\t\u2585"), piece


def test_unigram_scores_are_on_the_grid(models: dict[str, bytes]) -> None:
    scores = [piece.score for piece in model_proto.parse(models["unigram"]).pieces]
    assert all((score / SCORE_GRID).is_integer() for score in scores)
    assert min(scores) > -16 - 10  # what SCORE_GRID's bound on 8 KiB assumes, with the trainer's penalty


def test_every_printable_ascii_character_has_a_token(tokenizer: Tokenizer) -> None:
    for code in range(0x20, 0x7F):
        assert len(ids_of(tokenizer, chr(code))) == 1


@given(text=TEXT)
def test_decoding_gives_the_text_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(np.array(ids_of(tokenizer, text))) == text.replace("▁", " ")


@given(texts=st.lists(TEXT, max_size=5))
def test_tokens_cover_the_bytes_of_the_texts_and_texts_do_not_touch(tokenizer: Tokenizer, texts: list[str]) -> None:
    plain = plain_spaces(pa.array(texts, pa.string()))
    encoded = tokenizer.encode(plain)
    at = tokenizer.byte_offsets(encoded)
    data = "".join(plain.to_pylist()).encode()
    assert at[-1] == len(data)
    assert at[encoded.offsets].tolist() == np.cumsum([0, *(len(t.encode()) for t in plain.to_pylist())]).tolist()
    for token, a, b in zip(encoded.ids, at[:-1], at[1:], strict=True):
        piece = tokenizer.pieces[token]
        expected = bytes([int(piece.text[3:5], 16)]) if piece.type == BYTE else piece.text.replace("▁", " ").encode()
        assert data[a:b] == expected
    assert encoded.ids.tolist() == [i for text in texts for i in ids_of(tokenizer, text)]


@given(texts=st.lists(TEXT, max_size=4))
def test_ids_are_those_of_sentencepiece_on_whole_texts(tokenizer: Tokenizer, texts: list[str]) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)
    encoded = tokenizer.encode(pa.array(texts, pa.string()))
    expected = [i for text in texts for i in processor.encode(text)]
    assert encoded.ids.tolist() == expected


def test_long_texts_are_cut_without_a_change_of_ids(tokenizer: Tokenizer) -> None:
    text = "\n\n".join(list(topics.values())[60:80]) + "    \n" + "天地玄黃宇宙洪荒" * 3000
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)
    assert len(text.encode()) > 100_000
    assert ids_of(tokenizer, text) == processor.encode(text)


def test_special_tokens_in_a_text_stay_text(tokenizer: Tokenizer) -> None:
    for text in (*SPECIAL_TOKENS, "<0x41>", "a [MASK] b"):
        ids = ids_of(tokenizer, text)
        assert min(ids) >= 5
        assert not any(tokenizer.pieces[i].type == BYTE for i in ids if tokenizer.pieces[i].text == "<0x41>")
        assert tokenizer.decode(np.array(ids)) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n\n\n\n", ["\n\n", "\n\n"]),
        ("\t\t", ["\t", "\t"]),
        ("\n" + " " * 4 + "\n", ["\n", "▁" * 4, "\n"]),
        (" " * 16, ["▁" * 16]),
        (" " * 7, ["▁" * 7]),
        ("\r", ["<0x0D>"]),
    ],
)
def test_runs_of_white_space_cost_few_tokens(tokenizer: Tokenizer, text: str, expected: list[str]) -> None:
    assert pieces_of(tokenizer, text) == expected


def test_indentation_leaves_the_word_its_own_space(tokenizer: Tokenizer) -> None:
    assert "▁the" in {piece.text for piece in tokenizer.pieces}
    assert pieces_of(tokenizer, "    the") == ["▁▁▁", "▁the"]


def test_empty_arrays_nulls_and_slices(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode(pa.array([], pa.string())).offsets.tolist() == [0]
    assert tokenizer.encode(pa.array(["", None, ""], pa.string())).offsets.tolist() == [0, 0, 0, 0]
    whole = pa.array(["one two", "三 四", "five\nsix"])
    assert tokenizer.encode(whole[1:2]).ids.tolist() == ids_of(tokenizer, "三 四")
    assert tokenizer.encode(whole.cast(pa.large_string())).ids.tolist() == tokenizer.encode(whole).ids.tolist()


def test_ids_are_uint16_and_a_tokenizer_pickles(tokenizer: Tokenizer) -> None:
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.encode(CORPUS[:3]).ids.tolist() == tokenizer.encode(CORPUS[:3]).ids.tolist()
    assert tokenizer.encode(CORPUS[:3]).ids.dtype == np.uint16


def test_word_marks_reach_tokens_by_their_first_byte(tokenizer: Tokenizer) -> None:
    texts = pa.array(["The language, 天地玄黃", "中文 x"])
    encoded = tokenizer.encode(texts)
    marks = words.word_starts(texts)[tokenizer.byte_offsets(encoded)[:-1]]
    starts = np.flatnonzero(marks)
    groups = [tokenizer.decode(encoded.ids[a:b]) for a, b in zip(starts, [*starts[1:], len(marks)], strict=True)]
    assert groups[:3] == ["The", " language", ","]
    assert "".join(groups) == "The language, 天地玄黃中文 x"


def test_split_digits_makes_every_digit_a_token() -> None:
    texts = pa.array(["the year 2014 and 2015 or 1999 2014 2014 2015"] * 50)
    split = Tokenizer(train(texts, TrainConfig(vocab_size=800, split_digits=True)))
    joined = Tokenizer(train(texts, TrainConfig(vocab_size=800)))
    assert [p for p in pieces_of(split, "2014") if p != "▁"] == ["2", "0", "1", "4"]
    assert len(pieces_of(joined, " 2014")) < 4


def test_coverage_leaves_out_the_rarest_characters_of_its_script_alone() -> None:
    texts = pa.array(["中" * 90 + "國" * 9 + "罕", "é" * 99 + "ß"])
    config = TrainConfig(character_coverage={"han": 0.99, "default": 1.0})
    chosen = {chr(code) for code in alphabet(texts, config)}
    assert {"中", "國", "é", "ß", "~"} <= chosen
    assert "罕" not in chosen
    assert " " not in chosen


def test_the_alphabet_leaves_room_for_learned_pieces() -> None:
    texts = pa.array(["".join(chr(0x4E00 + i) for i in range(n)) for n in (5000, 600, 400)])
    config = TrainConfig(vocab_size=1200, max_alphabet=0.5)
    chosen = alphabet(texts, config)
    han = chosen[chosen >= 0x4E00]
    assert han.tolist() == list(range(0x4E00, 0x4E00 + 600))  # the most frequent; ties by code point
    tokenizer = Tokenizer(train(texts, config))
    assert tokenizer.decode(np.array(ids_of(tokenizer, "\u5fff中"))) == "\u5fff中"


def test_training_lines_keep_every_character_that_has_a_token() -> None:
    letters = np.array([ord(c) for c in "abc中"], np.uint32)
    lines = list(training_lines(["ab c\n\nxa\tb▁c", "c" * 9000, "中▅a"], letters))
    assert [line for line in lines if line] == ["ab c", "a", "b", "c", "c" * 4096, "c" * 4096, "c" * 808, "中", "a"]


def test_a_small_corpus_gives_a_smaller_vocabulary_and_an_empty_one_an_error() -> None:
    tiny = Tokenizer(train(pa.array(["hello world"]), TrainConfig()))
    assert 272 < tiny.vocab_size < 400
    assert tiny.decode(np.array(ids_of(tiny, "hello 中文"))) == "hello 中文"
    for empty in (pa.array([], pa.string()), pa.array(["", "\n"])):
        with pytest.raises(ValueError, match="no text to train"):
            train(empty, TrainConfig())


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "word"},
        {"vocab_size": 300},
        {"character_coverage": {"klingon": 0.9}},
        {"character_coverage": {"han": 1.5}},
        {"max_alphabet": 1.0},
    ],
)
def test_wrong_settings_are_named(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainConfig(**wrong)


def test_real_texts_round_trip(real_texts: Callable[[str, int], list[str]], tokenizer: Tokenizer) -> None:
    for corpus in ("wikipedia_en", "wikipedia_zh", "poetry_zh", "documentation_versions"):
        texts = real_texts(corpus, 500_000)
        encoded = tokenizer.encode(plain_spaces(pa.array(texts)))
        for i, text in enumerate(texts):
            ids = encoded.ids[encoded.offsets[i] : encoded.offsets[i + 1]]
            assert tokenizer.decode(ids) == text.replace("▁", " ")


def test_piece_lengths_count_spaces_as_one_byte() -> None:
    tokenizer = Tokenizer(train(CORPUS[:5], TrainConfig(vocab_size=800)))
    by_text = {piece.text: int(size) for piece, size in zip(tokenizer.pieces, tokenizer.piece_bytes, strict=True)}
    assert (by_text["[MASK]"], by_text["<0xE4>"], by_text["▁▁▁"], by_text["\n\n"]) == (0, 1, 3, 2)
    assert Piece("▁the", 0.0, NORMAL).text in by_text
    assert by_text["▁the"] == 4
