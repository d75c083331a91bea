"""Contracts: what breaks one is named by field and row, and newer data is refused before it is misread."""

import pyarrow as pa
import pytest

from schemas.base import VERSION_KEY, Record, SchemaError, field
from schemas.document import DOCUMENT
from schemas.ledger import LEDGER
from schemas.signals import signals_record
from schemas.signature import CLUSTER, signature_record

ROW = {
    "id": b"0" * 16,
    "source": "wiki",
    "locator": "a",
    "path": "a.jsonl",
    "text": "text",
    "content_hash": b"1" * 16,
    "metadata": None,
}


def documents(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist([ROW | row for row in rows], schema=DOCUMENT.schema)


def test_a_table_that_keeps_the_contract_is_valid() -> None:
    DOCUMENT.validate(documents({}, {"metadata": "{}"}))
    DOCUMENT.validate(documents())


def test_a_null_in_a_required_field_is_named_by_field_and_row() -> None:
    table = documents({}, {}, {"text": None}, {"text": None})
    with pytest.raises(SchemaError, match="raw: field 'text' is null in row 2"):
        DOCUMENT.validate(table, "raw")


def test_a_null_in_a_later_chunk_is_counted_from_the_first_row() -> None:
    table = pa.concat_tables([documents({}, {}), documents({}, {"source": None})])
    with pytest.raises(SchemaError, match="field 'source' is null in row 3"):
        DOCUMENT.validate(table)


def test_a_missing_column_and_a_wrong_type_are_named() -> None:
    with pytest.raises(SchemaError, match="field 'text' is missing"):
        DOCUMENT.validate(documents({}).drop_columns(["text"]))
    wrong = documents({}).set_column(4, "text", pa.array([5]))
    with pytest.raises(SchemaError, match="field 'text' is int64; expected string"):
        DOCUMENT.validate(wrong)


def test_text_that_is_not_utf8_is_refused_though_arrow_holds_it() -> None:
    table = documents({})
    broken = pa.array([b"\xff\xfe"]).view(pa.string())
    table = table.set_column(4, table.schema.field("text"), broken)
    with pytest.raises(SchemaError, match="field 'text' is not valid Arrow data"):
        DOCUMENT.validate(table)


def test_offsets_that_point_outside_are_refused() -> None:
    table = documents({}, {})
    offsets = pa.py_buffer(bytes.fromhex("000000000000007008000000"))
    broken = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"textmore")])
    with pytest.raises(SchemaError, match="'text' is not valid Arrow data"):
        DOCUMENT.validate(table.set_column(4, table.schema.field("text"), broken))


@pytest.mark.parametrize("version", [b"2.0", b"11.3"])
def test_a_newer_major_version_is_refused_with_what_to_do(version: bytes) -> None:
    table = documents({})
    newer = table.replace_schema_metadata({**table.schema.metadata, VERSION_KEY: version})
    with pytest.raises(SchemaError, match=r"version .*\.\d; this Gristmill reads up to 1\.x: install a newer"):
        DOCUMENT.validate(newer)


def test_a_newer_minor_version_with_a_new_nullable_column_is_read() -> None:
    table = documents({}).append_column(field("language", pa.string(), "new in 1.7", nullable=True), [["en"]])
    DOCUMENT.validate(table.replace_schema_metadata({**DOCUMENT.schema.metadata, VERSION_KEY: b"1.7"}))


def test_another_record_type_or_a_foreign_table_is_refused() -> None:
    with pytest.raises(SchemaError, match="x holds ledger records; expected document"):
        DOCUMENT.check_version(LEDGER.schema, "x")
    with pytest.raises(SchemaError, match="carries no Gristmill record name"):
        DOCUMENT.validate(documents({}).replace_schema_metadata({}))


def test_a_check_of_the_record_reports_field_and_row() -> None:
    record = Record("r", (1, 0), (field("n", pa.int64(), "a number"),), (lambda table: [("n", 4, "is odd")],))
    with pytest.raises(SchemaError, match="field 'n', row 4: is odd"):
        record.validate(pa.table({"n": [1]}, schema=record.schema))


@pytest.mark.parametrize("record", [DOCUMENT, LEDGER, CLUSTER, signature_record(4), signals_record(("chars",))])
def test_every_field_of_every_record_documents_itself_in_the_shard(record: Record) -> None:
    assert all(f.metadata[b"doc"] for f in record.schema)
    assert record.schema.metadata[b"gristmill.record"] == record.name.encode()
    record.validate(record.schema.empty_table())


def test_a_ledger_row_with_an_unknown_action_is_named() -> None:
    row = {"id": b"0" * 16, "source": "s", "stage": "clean", "reason": "r", "locator": "l"}
    rows = [row | {"action": "removed"}, row | {"action": "rejected"}, row | {"action": "dropped"}]
    with pytest.raises(SchemaError, match="field 'action', row 2: 'dropped' is none of removed, rejected"):
        LEDGER.validate(pa.Table.from_pylist(rows, schema=LEDGER.schema))
