import io

import pytest
import sentencepiece

from pipelines.text import model_proto
from pipelines.text.model_proto import BYTE, NORMAL, Piece


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def raw(request: pytest.FixtureRequest) -> bytes:
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox jumps over the lazy dog", "天地玄黃宇宙洪荒"] * 20),
        model_writer=writer,
        model_type=request.param,
        vocab_size=320,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return writer.getvalue()


def test_pieces_are_those_that_sentencepiece_reads(raw: bytes) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_proto=raw)
    model = model_proto.parse(raw)
    assert len(model.pieces) == processor.get_piece_size()
    for number, piece in enumerate(model.pieces):
        assert piece.text == processor.id_to_piece(number)
        assert piece.score == processor.get_score(number)
        assert (piece.type == BYTE) == processor.is_byte(number)


def test_an_unchanged_model_serialises_to_the_same_bytes(raw: bytes) -> None:
    assert model_proto.parse(raw).to_bytes() == raw


def test_sentencepiece_reads_an_edited_model_back(raw: bytes) -> None:
    model = model_proto.parse(raw)
    edited = model_proto.Model((*model.pieces, Piece("\n", -2.5, NORMAL)), model.rest)
    processor = sentencepiece.SentencePieceProcessor(model_proto=edited.to_bytes())
    assert processor.piece_to_id("\n") == len(model.pieces)
    assert processor.get_score(len(model.pieces)) == -2.5
    assert model_proto.parse(edited.to_bytes()) == model_proto.parse(model_proto.parse(edited.to_bytes()).to_bytes())


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_a_truncated_model_is_an_error_and_not_a_smaller_model(raw: bytes, cut: int) -> None:
    with pytest.raises(ValueError, match="not a SentencePiece model"):
        model_proto.parse(raw[:-cut])


def test_model_type_is_read(raw: bytes) -> None:
    scores = [piece.score for piece in model_proto.parse(raw).pieces if piece.type == NORMAL]
    assert model_proto.parse(raw).is_bpe == all(score == round(score) for score in scores)
