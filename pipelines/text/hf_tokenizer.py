"""Convert a SentencePiece model to the files that `transformers.AutoTokenizer.from_pretrained` loads, with equal ids.

Equal for every text, with one exception: by default transformers turns a literal '[MASK]' (or another special token) in
a text into the special id, as its users expect; with `split_special_tokens=True` it is text, as in our own encoding.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pipelines.text import model_proto
from pipelines.text.model_proto import NORMAL, Piece
from pipelines.text.sentencepiece import SPACE
from schemas.packed import CLS_ID, SEP_ID, SPECIAL_TOKENS, UNK_ID

# Score of bytes and special tokens in a unigram vocabulary: `tokenizers` matches them in text ("<0x0A>") as it does any
# piece, SentencePiece never; so low, they lose against every other way to read those characters. A power of 2.
_NEVER = -float(1 << 20)


def files(model: bytes, max_length: int) -> dict[str, bytes]:
    """Make tokenizer.json, tokenizer_config.json and special_tokens_map.json of a serialised model."""
    pad, unk, cls, sep, mask = SPECIAL_TOKENS
    special = {"cls_token": cls, "mask_token": mask, "pad_token": pad, "sep_token": sep, "unk_token": unk}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "right",
        "truncation_side": "right",
        **special,
    }
    return {
        "tokenizer.json": _json(tokenizer_json(model_proto.parse(model))),
        "tokenizer_config.json": _json(config),
        "special_tokens_map.json": _json(special),
    }


def tokenizer_json(model: model_proto.Model) -> dict[str, Any]:
    """The content of tokenizer.json."""
    cls, sep = SPECIAL_TOKENS[CLS_ID], SPECIAL_TOKENS[SEP_ID]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": content,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for number, content in enumerate(SPECIAL_TOKENS)
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [_special(cls, 0), _sequence("A", 0), _special(sep, 0)],
            "pair": [_special(cls, 0), _sequence("A", 0), _special(sep, 0), _sequence("B", 1), _special(sep, 1)],
            "special_tokens": {
                cls: {"id": cls, "ids": [CLS_ID], "tokens": [cls]},
                sep: {"id": sep, "ids": [SEP_ID], "tokens": [sep]},
            },
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": _bpe(model.pieces) if model.is_bpe else _unigram(model.pieces),
    }


def _unigram(pieces: Sequence[Piece]) -> dict[str, Any]:
    vocab = [[piece.text, piece.score if piece.type == NORMAL else _NEVER] for piece in pieces]
    return {"type": "Unigram", "unk_id": UNK_ID, "vocab": vocab, "byte_fallback": True}


def _bpe(pieces: Sequence[Piece]) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": SPECIAL_TOKENS[UNK_ID],
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": True,
        "ignore_merges": False,
        "vocab": {piece.text: number for number, piece in enumerate(pieces)},
        "merges": merges(pieces),
    }


def merges(pieces: Sequence[Piece]) -> list[list[str]]:
    """List the merges of a BPE model, best first: every pair of pieces whose concatenation is a piece.

    SentencePiece joins any such pair, by the score of what it makes, the leftmost first where scores are equal.
    `tokenizers` ranks pairs, so the pairs of one piece need an order: the longer left part first, since by merging from
    the left a run (a a a) is read as (aa)(a).
    """
    scores = {piece.text: piece.score for piece in pieces if piece.type == NORMAL}
    ranked = sorted((text for text in scores if len(text) > 1), key=lambda text: (-scores[text], text))
    return [
        [text[:at], text[at:]]
        for text in ranked
        for at in range(len(text) - 1, 0, -1)
        if text[:at] in scores and text[at:] in scores
    ]


def _special(token: str, type_id: int) -> dict[str, Any]:
    return {"SpecialToken": {"id": token, "type_id": type_id}}


def _sequence(name: str, type_id: int) -> dict[str, Any]:
    return {"Sequence": {"id": name, "type_id": type_id}}


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()
