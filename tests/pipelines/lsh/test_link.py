"""Rounds of linking: every unit is in exactly one, none is larger than the memory allows, and no pair is lost."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipelines.lsh.buckets import CONTENT
from pipelines.lsh.config import DedupeConfig
from pipelines.lsh.link import Round, bucket_elements, link_tasks, plan_rounds
from pipelines.lsh.method import Rows
from pipelines.lsh.nodes import IndexShard, Nodes
from pipelines.lsh.probe import Held, ProbeWriter
from pipelines.lsh.sign import sign_batch
from pipelines.text.minhash import band_hashes, band_places
from schemas.document import DOCUMENT

CONFIG = DedupeConfig()


@given(st.integers(1, 10**7), st.integers(10**6, 10**10), st.booleans())
def test_rounds_take_every_unit_once_and_fit_the_memory(documents: int, memory: int, near: bool) -> None:
    rounds = plan_rounds(documents, DedupeConfig(near=near), memory)
    bands = 1 + 28 if near else 1  # that of the content, and those of both cuts
    assert rounds[0].first == 0 and rounds[-1].last == bands * rounds[0].ranges
    assert all(one.last == following.first for one, following in itertools.pairwise(rounds))
    unit = documents * 16 * 3.6 / rounds[0].ranges
    assert all((one.last - one.first) * unit <= max(memory, 1) * 1.001 + 58 for one in rounds)
    if len(rounds) > 1:
        assert (rounds[0].last - rounds[0].first + 1) * unit > memory * 0.999, "fewer rounds would do"


def test_without_a_limit_there_is_one_round() -> None:
    assert plan_rounds(10**12, CONFIG, 0) == [Round(0, 29 * 238_419, 238_419)]
    assert plan_rounds(1000, CONFIG, 10**9) == [Round(0, 29, 1)]
    assert plan_rounds(1_000_000, CONFIG, 116_000_000) == [Round(i, min(i + 2, 29), 1) for i in range(0, 29, 2)]


def index_of(texts: list[str]) -> pa.RecordBatch:
    rows = [
        {"id": bytes([i]) * 16, "source": "s", "locator": str(i), "path": "p", "text": text}
        | {"content_hash": text.encode()[:16].ljust(16)}
        for i, text in enumerate(texts)
    ]
    return sign_batch(pa.RecordBatch.from_pylist(rows, schema=DOCUMENT.schema), CONFIG)


TEXTS = ["one two three four five six"] * 2 + ["七个汉字在这里呢", "...", "other words in this"]


def pairs(rounds: list[Round], taking: np.ndarray | None = None) -> list[tuple[int, int, int]]:
    """(band, hash, node) of every element of every round."""
    found = []
    for one in rounds:
        index = index_of(TEXTS)
        for key, (_, batch) in bucket_elements([Rows(100, [index[:2], index[2:]], taking)], one, CONFIG):
            band = int(key.split("/")[1])
            found += [(band, h, n) for h, n in zip(batch["hash"].to_pylist(), batch["node"].to_pylist(), strict=True)]
    return sorted(found)


def test_rounds_of_any_size_hold_the_same_pairs() -> None:
    index = index_of(TEXTS)
    hashes = band_hashes(index["signature"].flatten().to_numpy().reshape(-1, 112), 14, 8, 0, 28)
    content = [int.from_bytes(value.as_py()[:8], "little") for value in index["content_hash"]]
    expected = [(CONTENT, value, 100 + i) for i, value in enumerate(content)]
    expected += [(band, int(hashes[band, i]), 100 + i) for band in range(28) for i in (0, 1, 2, 4)]  # "..." has none
    for ranges in (1, 3):
        for size in (1, 4, 99):
            units = 29 * ranges
            rounds = [Round(first, min(first + size, units), ranges) for first in range(0, units, size)]
            assert pairs(rounds) == sorted(expected)


def test_those_who_take_no_part_are_left_out() -> None:
    taking = np.array([False, True, True, True, False])
    assert {node for *_, node in pairs([Round(0, 29, 1)], taking=taking)} == {101, 102, 103}


def test_a_probe_lets_through_what_was_put_in_and_little_else(tmp_path: object) -> None:
    rng = np.random.default_rng(2)
    held, others = rng.integers(0, 2**64, (2, 20_000), dtype=np.uint64)
    writer = ProbeWriter(len(held), range(-1, 4))
    writer.add(-1, held)
    writer.add(3, held + np.uint64(1))
    probe = writer.write(str(tmp_path))
    assert probe.may_hold(-1, held).all() and probe.may_hold(3, held + np.uint64(1)).all()
    assert probe.may_hold(-1, others).mean() < 0.05 and probe.may_hold(3, held).mean() < 0.05


def test_a_probe_finds_in_signatures_the_bands_that_may_be_held(tmp_path: object) -> None:
    rng = np.random.default_rng(4)
    signatures = rng.integers(0, 2**32, (500, 12), dtype=np.uint32)
    hashes = band_hashes(signatures, 4, 3, 0, 8)
    writer = ProbeWriter(100, range(-1, 8))
    for band, places in enumerate(band_places(4, 3, 0, 8)):
        writer.add_signed(signatures[band::40], range(band, band + 1), places[None])
    probe = writer.write(str(tmp_path))
    taking = rng.random(500) < 0.7
    found = Held(range(2, 7), band_places(4, 3, 2, 7), 500)
    for start in (0, 200):  # two batches
        part = slice(start, start + 200 + start)
        probe.collect(signatures[part], taking[part], start, found)
    assert [band for band, *_ in found] == [2, 3, 4, 5, 6]
    for band, of_band, rows in found:
        assert np.array_equal(of_band, hashes[band, rows])
        held = set(np.flatnonzero(taking)) & set(range(band, 500, 40))
        assert held <= set(rows) <= set(np.flatnonzero(taking)) and sorted(set(rows)) == rows.tolist()
        assert len(rows) < len(held) + 25, "one in 32 of the others is let through"


def test_tasks_take_each_shard_once_and_only_old_ones_together() -> None:
    sizes = [10, 500, 20, 30, 40, 1, 800, 7, 9, 100_000]  # of the last one, an eighth bounds the tasks, else 177
    shards = [IndexShard("r", str(i), rows, fixed=i > 1) for i, rows in enumerate(sizes)]
    one_each = [(i, i + 1) for i in range(10)]
    assert link_tasks(Nodes(tuple(shards)), None) == one_each
    together = [(0, 1), (1, 2), (2, 9), (9, 10)]
    assert link_tasks(Nodes(tuple(shards)), "a probe") == together  # type: ignore[arg-type]
    fewer = link_tasks(Nodes(tuple(shards[:9])), "a probe")  # type: ignore[arg-type]
    assert fewer == [(0, 1), (1, 2), (2, 6), (6, 7), (7, 9)]


def test_a_probe_of_nothing_lets_nothing_through(tmp_path: object) -> None:
    probe = ProbeWriter(0, range(1)).write(str(tmp_path))
    assert not probe.may_hold(0, np.arange(100, dtype=np.uint64)).any()
