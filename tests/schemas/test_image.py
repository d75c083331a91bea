import datasets
import pyarrow as pa
import pytest

from schemas.base import SchemaError
from schemas.image import IMAGE, validate

ROW = {
    "id": b"i" * 16,
    "source": "s",
    "locator": "a.jpg",
    "path": "a.jpg",
    "image": {"bytes": b"\xff\xd8", "path": "a.jpg"},
    "content_hash": b"h" * 16,
    "sha256": b"s" * 32,
}


def test_datasets_takes_the_image_column_for_images_and_all_others_for_what_arrow_says():
    features = datasets.Features.from_arrow_schema(IMAGE.schema)
    assert features["image"] == datasets.Image()
    assert features["width"] == datasets.Value("int32")
    assert features.arrow_schema.field("id").type == pa.binary(16)


def test_a_valid_image_passes():
    validate(pa.Table.from_pylist([ROW], schema=IMAGE.schema))


@pytest.mark.parametrize("image", [None, {"bytes": None, "path": "a.jpg"}, {"bytes": b"", "path": None}])
def test_an_image_without_bytes_or_path_is_refused(image):
    with pytest.raises(SchemaError, match="field 'image', row 1"):
        validate(pa.Table.from_pylist([ROW, {**ROW, "image": image}], schema=IMAGE.schema))
