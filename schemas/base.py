"""Versioned Arrow schemas: build them, refuse newer ones, and say which field and row broke the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

RECORD_KEY = b"gristmill.record"
VERSION_KEY = b"gristmill.version"
DOC_KEY = b"doc"


class SchemaError(ValueError):
    """A table, shard or manifest does not keep the contract of its schema."""


Check = Callable[[pa.Table], Iterable[tuple[str, int, str]]]


def field(name: str, type_: pa.DataType, doc: str, *, nullable: bool = False) -> pa.Field:
    """Make a field that carries its own documentation in the shard."""
    return pa.field(name, type_, nullable=nullable, metadata={DOC_KEY: doc.encode()})


def list_of(type_: pa.DataType, size: int = -1) -> pa.DataType:
    """Make the type of lists without nulls, of `size` values each where that is given."""
    return pa.list_(pa.field("item", type_, nullable=False), size)


@dataclass(frozen=True)
class Record:
    """One record type: its Arrow schema, its version (major, minor) and checks beyond types and nulls.

    A minor version adds nullable columns; a major version changes what a reader must know.
    """

    name: str
    version: tuple[int, int]
    fields: tuple[pa.Field, ...]
    checks: tuple[Check, ...] = ()
    metadata: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema, with the record's name and version in its metadata (besides `metadata`, for others)."""
        version = f"{self.version[0]}.{self.version[1]}".encode()
        own = {RECORD_KEY: self.name.encode(), VERSION_KEY: version}
        return pa.schema(self.fields, metadata={**own, **dict(self.metadata)})

    def check_version(self, schema: pa.Schema, where: str = "this shard") -> None:
        """Raise SchemaError where `schema` is another record or a newer major version than this code knows."""
        metadata = schema.metadata or {}
        name, version = metadata.get(RECORD_KEY), metadata.get(VERSION_KEY)
        if name is None or version is None:
            raise SchemaError(f"{where} carries no Gristmill record name and version; expected {self.name} records")
        if name != self.name.encode():
            raise SchemaError(f"{where} holds {name.decode()} records; expected {self.name} records")
        major = int(version.split(b".")[0])
        if major > self.version[0]:
            raise SchemaError(
                f"{where} holds {self.name} records of version {version.decode()}; this Gristmill reads up to "
                f"{self.version[0]}.x: install a newer Gristmill, or write the data again with this one"
            )

    def validate(self, table: pa.Table, where: str = "table") -> None:
        """Raise SchemaError naming the field and the row that break the contract.

        Checks, in this order: version, columns and types, Arrow's own full validation (offsets, UTF-8),
        nulls in required fields, then the record's own checks.
        """
        self.check_version(table.schema, where)
        for expected in self.fields:
            if expected.name not in table.column_names:
                raise SchemaError(f"{where}: field {expected.name!r} is missing")
            found = table.schema.field(expected.name).type
            if not found.equals(expected.type):
                raise SchemaError(f"{where}: field {expected.name!r} is {found}; expected {expected.type}")
        for name in table.column_names:
            column = table[name]
            try:
                column.validate(full=True)
            except pa.ArrowInvalid as error:
                raise SchemaError(f"{where}: field {name!r} is not valid Arrow data: {error}") from error
        for expected in self.fields:
            if not expected.nullable and table[expected.name].null_count:
                row = pc.index(pc.is_null(table[expected.name]), True).as_py()
                raise SchemaError(f"{where}: field {expected.name!r} is null in row {row}; it is required")
        for check in self.checks:
            for name, row, message in check(table):
                raise SchemaError(f"{where}: field {name!r}, row {row}: {message}")


def first_row(mask: pa.ChunkedArray | pa.Array) -> int | None:
    """Index of the first true value, or None."""
    row = pc.index(mask, True).as_py()
    return None if row < 0 else row
