"""Images in Parquet and Arrow: a column of bytes, or of Hugging Face's struct of bytes and path."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipelines.readers import arrow, hf, parquet
from pipelines.readers.arrow import ROWS
from pipelines.readers.base import Image, InputFile, Item, ReadConfig, ReadError, Reject, reject
from pipelines.readers.image_fields import LABEL_FIELDS, Unusable, from_record

# Tried in this order where neither the configuration nor Hugging Face's features name the column.
IMAGE_FIELDS = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes")
# First bytes of images whose record has no file name, so that it can be given one that fits.
_MAGIC = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
)


def read_parquet(file: InputFile, config: ReadConfig) -> Iterator[Item]:
    """Yield the rows of a Parquet file as images; see `parquet.read` and `open_rows`."""
    return parquet.read(file, config, open_rows)


def read_arrow(file: InputFile, config: ReadConfig) -> Iterator[Item]:
    """Yield the rows of an Arrow file or stream as images; see `hf.read` and `open_rows`."""
    return hf.read(file, config, open_rows)


def open_rows(schema: pa.Schema, file: InputFile, config: ReadConfig) -> arrow.Rows:
    """Find the columns of a schema, and read rows by them.

    The images are in `images.image_field`, else in the only column that Hugging Face's features call an Image, else in
    the first usual name whose column holds bytes. Labels that are ClassLabel get their names from the features, where
    the configuration has none. Columns that hold bytes at any depth are not kept as metadata. Rejected:
    'missing_image' (null, or a path without bytes: nothing outside the file is opened), 'too_large', 'invalid_utf8',
    and what `from_record` refuses. Raises ReadError where a named column is missing or is of another kind.
    """
    columns = _Columns(schema, file, config)
    return columns.items


class _Columns:
    def __init__(self, schema: pa.Schema, file: InputFile, config: ReadConfig) -> None:
        if len(set(schema.names)) != len(schema.names):
            raise ReadError(f"{file.relative}: two columns have the same name; the file holds {_shown(schema)}")
        self._config = config
        features = _features(schema)
        self._image = _image_column(schema, file, config, features)
        for what, name in (
            ("label", config.images.label_field),
            ("caption", config.images.caption_field),
            ("id", config.id_field),
        ):
            if name and name not in schema.names:
                raise ReadError(f"{file.relative}: no column {name!r} for the {what}; the file holds {_shown(schema)}")
        asked = (config.id_field, config.images.label_field, config.images.caption_field)
        self._rest = [
            field.name
            for field in schema
            if field.name != self._image and (field.name in asked or not _holds_bytes(field.type))
        ]
        self._names = _class_names(schema, features, config)

    def items(self, batch: pa.RecordBatch, position: int) -> Iterator[Item]:
        """Yield the records of a batch, which is not trusted. Raises pa.ArrowInvalid where its buffers are wrong."""
        image = arrow.unchecked(batch.column(self._image))
        others = {name: arrow.plain(arrow.unchecked(batch.column(name))) for name in self._rest}
        paths: pa.Array | None = None
        missing = image.is_null().to_pylist()
        if pa.types.is_struct(image.type):
            paths = arrow.unchecked(image.field("path")) if image.type.get_field_index("path") >= 0 else None
            image = image.field("bytes")
        for start in range(0, batch.num_rows, ROWS):
            values = {name: column.slice(start, ROWS).to_pylist() for name, column in others.items()}
            for i in range(min(ROWS, batch.num_rows - start)):
                row = start + i
                data = None if missing[row] else image[row].as_py()
                path = paths[row].as_py() if paths is not None else None
                record = {name: column[i] for name, column in values.items()}
                yield self._item(position + row, data, path, record)

    def _item(self, position: int, data: bytes | None, path: bytes | None, record: dict[str, Any]) -> Item:
        if data is None:
            detail = "it is a path without bytes" if path else "it is null"
            return Reject(position, "missing_image", f"column {self._image!r}: {detail}")
        if len(data) > self._config.max_record_bytes:
            limit = f"{len(data)} bytes, the limit is {self._config.max_record_bytes}"
            return reject(position, "too_large", limit, data)
        try:
            name = _base_name((path or b"").decode()) or f"{position:08d}{_suffix(data)}"
            for field, value in record.items():
                if isinstance(value, bytes):
                    record[field] = value.decode()
            key, label, caption, metadata = from_record(record, self._config, self._names)
        except UnicodeDecodeError as flaw:
            return reject(position, "invalid_utf8", f"{flaw.reason} at byte {flaw.start} of a column", data)
        except Unusable as error:
            return reject(position, error.reason, str(error), data)
        return Image(data, name, key, label, caption, metadata)


def _image_column(schema: pa.Schema, file: InputFile, config: ReadConfig, features: dict[str, Any]) -> str:
    named = config.images.image_field
    if named is not None:
        if named not in schema.names or not _is_image(schema.field(named).type):
            found = f"column {named!r} holds no bytes" if named in schema.names else f"no column {named!r}"
            raise ReadError(f"{file.relative}: {found} for the image; the file holds {_shown(schema)}")
        return named
    usable = [name for name in schema.names if _is_image(schema.field(name).type)]
    marked = [name for name in usable if _kind(features.get(name)) == "Image"]
    if len(marked) == 1:
        return marked[0]
    for name in IMAGE_FIELDS:
        if name in usable:
            return name
    raise ReadError(
        f"{file.relative}: no column of image bytes has a usual name ({', '.join(IMAGE_FIELDS)}); name it by "
        f"read.images.image_field, or leave the file out; it holds {_shown(schema)}"
    )


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or kind == pa.binary_view()


def _holds_bytes(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.ExtensionType):
        return _holds_bytes(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    if _is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return True
    return any(_holds_bytes(kind.field(i).type) for i in range(kind.num_fields))


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What Hugging Face `datasets` says of the columns; empty where it says nothing that can be read."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _kind(feature: Any) -> Any:
    return feature.get("_type") if isinstance(feature, dict) else None


def _class_names(schema: pa.Schema, features: dict[str, Any], config: ReadConfig) -> tuple[str, ...]:
    """The names of a ClassLabel column, which is the label's: the one named, else the first that there is."""
    named = config.images.label_field
    for name in LABEL_FIELDS if named is None else (named,):
        if name in schema.names:
            feature = features.get(name)
            names = feature.get("names") if isinstance(feature, dict) and _kind(feature) == "ClassLabel" else None
            return tuple(names) if isinstance(names, list) and all(isinstance(one, str) for one in names) else ()
    return ()


def _base_name(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def _suffix(data: bytes) -> str:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for magic, suffix in _MAGIC if data.startswith(magic)), "")


def _shown(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)[:400]
