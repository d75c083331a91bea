"""Arrow IPC: what `save_to_disk` writes is read, and a stream that stops early is never taken for a whole one."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.readers import hf
from pipelines.readers.base import Document, InputFile, Item, ReadConfig, ReadError, Reject


def read(path: Path) -> list[Item]:
    return list(hf.read(InputFile(str(path), path.name, path.stat().st_size, "arrow"), ReadConfig()))


def batches() -> list[pa.RecordBatch]:
    return [pa.record_batch({"text": [f"{b}-{i} 文" for i in range(32)], "n": list(range(32))}) for b in range(3)]


def write(path: Path, kind: str) -> bytes:
    new: Any = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
    with pa.OSFile(str(path), "wb") as sink, new(sink, batches()[0].schema) as writer:
        for batch in batches():
            writer.write_batch(batch)
    return path.read_bytes()


EXPECTED = [Document(f"{b}-{i} 文", None, f'{{"n":{i}}}'.encode()) for b in range(3) for i in range(32)]


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_streams_and_files_are_read(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "x.arrow", kind)
    assert read(tmp_path / "x.arrow") == EXPECTED


def test_bytes_after_the_end_marker_are_the_footer_of_a_sealed_stream(tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    path.write_bytes(write(path, "stream") + b"footer" * 20 + b"ARROW1")
    assert read(path) == EXPECTED


def test_a_stream_cut_at_any_byte_is_rejected_after_its_whole_batches(tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    raw = write(path, "stream")
    message = batches()[0].serialize().size
    head = len(raw) - 8 - 3 * message
    boundaries = [head + i * message for i in range(4)]
    for cut in [*boundaries, *range(1, len(raw), 97)]:
        path.write_bytes(raw[:cut])
        found = read(path)
        whole = sum(cut >= boundary for boundary in boundaries[1:])
        assert found[:-1] == EXPECTED[: 32 * whole], cut
        bad = found[-1]
        assert isinstance(bad, Reject) and bad.reason == "truncated_file" and bad.position == 32 * whole


@pytest.mark.parametrize("raw", [b"", b"not arrow at all, but long enough to be read", b"ARROW1\0\0 and then nothing"])
def test_other_bytes_are_one_reject(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "x.arrow").write_bytes(raw)
    (bad,) = read(tmp_path / "x.arrow")
    assert isinstance(bad, Reject) and bad.reason in ("unreadable_file", "truncated_file")


def test_names_in_state_json_may_not_leave_the_directory() -> None:
    for name in ("../x.arrow", "/etc/passwd", "a/b.arrow", "..", ""):
        state = json.dumps({"_data_files": [{"filename": name}]}).encode()
        with pytest.raises(ReadError, match="outside"):
            hf.data_files(state, "state.json")
    assert hf.data_files(b'{"_data_files": [{"filename": "a.arrow"}]}', "") == ["a.arrow"]
    for other in (b"", b"[]", b'{"state": 1}', b'{"_data_files": 3}', b"\xff"):
        assert hf.data_files(other, "") is None


def test_a_row_selection_is_refused_instead_of_ignored() -> None:
    state = {"_data_files": [{"filename": "a.arrow"}], "_indices_data_files": [{"filename": "i.arrow"}]}
    with pytest.raises(ReadError, match="selects rows"):
        hf.data_files(json.dumps(state).encode(), "state.json")


def test_splits() -> None:
    assert hf.splits(b'{"splits": ["train", "test"]}') == ["train", "test"]
    for other in (b"", b"{}", b'{"splits": [1]}', b'{"splits": "train"}'):
        assert hf.splits(other) is None
