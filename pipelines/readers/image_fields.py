"""Which fields of a record are an image's label, caption and id; all readers of images agree on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from pipelines.readers import arrow
from pipelines.readers.base import ImageReadConfig, ReadConfig

# What is tried, in this order, where the configuration names no field. They are the names that Hugging Face datasets
# of images, img2dataset and ImageFolder's metadata files use.
LABEL_FIELDS = ("label", "cls", "class_name", "class")
CAPTION_FIELDS = ("caption", "text")
SIDECARS = ("json", "txt", "cls")  # extensions of files that stand beside an image and say something of it
KEY_FIELD = "__key__"  # as WebDataset calls what the files of a sample have in common


class Unusable(ValueError):
    """A record's fields cannot be used; `reason` is the ledger's code."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Fields(NamedTuple):
    """What a record says of its image. metadata: canonical JSON of its other fields."""

    key: str | None
    label: str | None
    caption: str | None
    metadata: bytes | None


def parent_label(path: str, config: ImageReadConfig) -> str | None:
    """Name the folder that an image's path (below the input, or in its archive) puts it in; None without one."""
    folders = [part for part in path.split("/")[:-1] if part not in ("", ".")]
    if config.label_from == "none" or not folders:
        return None
    return folders[-1] if config.label_from == "parent" else folders[0]


def label_name(value: Any, names: Sequence[str]) -> str | None:
    """Make a label of a name or a number; `names` are those of the numbers. None and '' are no label.

    Raises Unusable: 'unknown_label' for a number that `names` does not reach, 'invalid_label' for anything else.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str):
        if not names or not (value.isascii() and value.isdigit()):
            return value
        value = int(value[:20])
    if type(value) is not int:
        raise Unusable("invalid_label", f"the label is of type {type(value).__name__}, neither text nor a whole number")
    if not names:
        return str(value)
    if not 0 <= value < len(names):
        raise Unusable("unknown_label", f"the label is {value}, and there are {len(names)} class names")
    return names[value]


def from_record(
    record: dict[str, Any],
    config: ReadConfig,
    names: Sequence[str] = (),
    *,
    label: str | None = None,
    caption: str | None = None,
) -> Fields:
    """Take label, caption and id out of a record; the rest becomes its metadata.

    A field that the configuration names must hold what it is named for, null or nothing at all; a usual name counts
    only where it does. names: of the label's numbers, where the configuration gives none. label, caption: those that
    are known from elsewhere; a field that says the same is not kept twice, one that says something else is metadata.
    Raises Unusable: 'invalid_label', 'unknown_label', 'invalid_caption', 'missing_id', 'invalid_id',
    'invalid_metadata'.
    """
    images = config.images
    label = _take(record, images.label_field, LABEL_FIELDS, (str, int), label)
    caption = _take(record, images.caption_field, CAPTION_FIELDS, (str,), caption)
    if caption is not None and not isinstance(caption, str):
        raise Unusable("invalid_caption", f"the caption is of type {type(caption).__name__}, not text")
    if names and label == -1:  # so Hugging Face's ClassLabel says that there is none
        label = None
    label = label_name(label, images.class_names or names)
    key = _own_id(record, config.id_field) if config.id_field is not None else None
    return Fields(key, label, caption or None, to_metadata(record))


def from_sidecars(beside: Mapping[str, bytes], key: str, config: ReadConfig) -> Fields:
    """Take label, caption and id from the files beside an image, by extension; the .json is a record.

    .txt is the caption and .cls the label, whatever the .json says of those. key: of the files, which `__key__` names.
    Raises Unusable: 'invalid_json', 'not_an_object', 'invalid_utf8', and what `from_record` raises.
    """
    texts = {extension: _text(extension, data) for extension, data in beside.items()}
    record: Any = {}
    if "json" in texts:
        try:
            record = orjson.loads(texts["json"])
        except orjson.JSONDecodeError as error:
            raise Unusable("invalid_json", f"the .json beside it: {error}") from None
        if type(record) is not dict:
            raise Unusable("not_an_object", "the .json beside it holds no object")
    if config.id_field == KEY_FIELD:
        record[KEY_FIELD] = key
    label, caption = (texts.get(extension, "").strip() or None for extension in ("cls", "txt"))
    return from_record(record, config, label=label, caption=caption)


def _text(extension: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as flaw:
        raise Unusable("invalid_utf8", f"the .{extension} beside it: {flaw.reason} at byte {flaw.start}") from None


def to_metadata(record: Mapping[str, Any]) -> bytes | None:
    """Write fields as canonical JSON; None where there are none. Raises Unusable 'invalid_metadata'."""
    if not record:
        return None
    try:
        return orjson.dumps(record, default=arrow.to_json, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as error:
        raise Unusable("invalid_metadata", f"its other fields cannot be written as JSON: {error}") from None


def _take(record: dict[str, Any], name: str | None, usual: Sequence[str], kinds: tuple[type, ...], known: Any) -> Any:
    for one in usual if name is None else (name,) if name else ():
        value = record.get(one)
        if known is not None:
            if value == known or (type(value) is int and str(value) == known):
                del record[one]
        elif name is not None or (isinstance(value, kinds) and not isinstance(value, bool)):
            return record.pop(one, None)
    return known


def _own_id(record: dict[str, Any], name: str) -> str:
    value = record.pop(name, None)
    if value is None or value == "":
        raise Unusable("missing_id", f"field {name!r} is absent, null or empty")
    if isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    raise Unusable("invalid_id", f"field {name!r} is of type {type(value).__name__}, not text or a whole number")
