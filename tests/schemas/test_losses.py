"""Losses of documents: what is no loss is named by its row."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest

from schemas.base import SchemaError
from schemas.losses import LOSSES, validate


def losses(*rows: tuple[float, int]) -> pa.Table:
    return pa.Table.from_pylist(
        [{"id": bytes(16), "source": "诗", "step": 7, "loss": loss, "tokens": tokens} for loss, tokens in rows],
        schema=LOSSES.schema,
    )


def test_losses_from_zero_up_are_valid() -> None:
    validate(losses((0.0, 1), (12.5, 300)))
    validate(losses())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ((math.nan, 3), "field 'loss', row 1: nan is no loss"),
        ((math.inf, 3), "field 'loss', row 1: inf is no loss"),
        ((-0.5, 3), "field 'loss', row 1: -0.5 is negative"),
        ((2.0, 0), "field 'tokens', row 1: no token was guessed"),
    ],
)
def test_what_is_no_loss_is_named_with_its_row(wrong: tuple[float, int], message: str) -> None:
    with pytest.raises(SchemaError, match=f"here: {message}"):
        validate(losses((1.0, 1), wrong, (2.0, 1)), "here")
