"""Processing whole images: what comes out for real and for hostile ones, the same bytes each time."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from pipelines.images import process as module
from pipelines.images.config import REASONS, ImageConfig, Processed, Refused
from pipelines.images.process import process

from .pictures import encoded, picture

PHOTOS = Path(__file__).resolve().parents[4] / "shared" / "data" / "caltech101_subset.tar"
ALL = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def done(data: bytes, **settings: object) -> Processed:
    result = process(data, ImageConfig(**settings))  # type: ignore[arg-type]
    assert isinstance(result, Processed), result
    return result


def reason(data: bytes, **settings: object) -> str:
    result = process(data, ImageConfig(**settings))  # type: ignore[arg-type]
    assert isinstance(result, Refused), result
    assert result.reason in REASONS
    return result.reason


def opened(result: Processed) -> Image.Image:
    return Image.open(io.BytesIO(result.data))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_an_image_that_needs_nothing_keeps_its_compressed_data(format: str, mode: str) -> None:
    data = encoded(picture().convert(mode), format)
    result = done(data)
    assert result.data == data
    assert result[1:7] == (90, 60, format, 90, 60, 1)


def test_metadata_are_gone_whether_data_are_kept_or_made_anew() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.0), 29: "2024:05:06"})
    exif[0x010E] = "secret place"
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "secret place")
    extra = {"exif": exif, "xmp": b"<x>secret place</x>", "icc_profile": b"secret place"}
    for data in (
        encoded(picture(), "JPEG", comment=b"secret place", **extra),
        encoded(picture(), "PNG", pnginfo=text, **{k: v for k, v in extra.items() if k != "xmp"}),
        encoded(picture(), "WEBP", **extra),
        encoded(picture(), "GIF", comment=b"secret place"),
        encoded(picture(), "TIFF", exif=exif),
    ):
        for resize in ("keep", "keep_ratio"):
            for encoding in ("keep", "jpeg", "png", "webp"):
                result = done(data, formats=ALL, resize=resize, size=30, encoding=encoding)
                assert b"secret" not in result.data and b"2024:05:06" not in result.data
                image = opened(result)
                image.load()
                assert not image.getexif() and not {"comment", "xmp", "icc_profile", "exif"} & set(image.info)


def test_the_pixels_are_hashed_whatever_holds_them() -> None:
    image = picture()
    results = [done(encoded(image, format), formats=ALL) for format in ("PNG", "BMP", "TIFF")]
    results.append(done(encoded(image, "WEBP", lossless=True)))
    results.append(done(encoded(image, "PNG", icc_profile=b"x" * 40, dpi=(300, 300), compress_level=1)))
    assert len({(one.pixel_hash, one.thumbnail) for one in results}) == 1


def test_other_metadata_in_a_large_jpeg_change_no_hash() -> None:
    data = encoded(picture(1100, 1030), "JPEG")
    exif = Image.Exif()
    exif[0x010E] = "elsewhere"
    assert done(encoded(picture(1100, 1030), "JPEG", exif=exif, comment=b"x")).pixel_hash == done(data).pixel_hash
    assert done(encoded(picture(1100, 1030), "JPEG", dpi=(300, 300))).pixel_hash == done(data).pixel_hash
    assert done(encoded(picture(1100, 1030, 1), "JPEG")).pixel_hash != done(data).pixel_hash


def test_neither_hash_nor_thumbnail_depend_on_the_output() -> None:
    for data in (encoded(picture(1400, 1100), "JPEG"), encoded(picture(300, 200), "PNG")):
        found = {
            done(data, resize=resize, size=size, encoding=encoding, quality=50)[7:]
            for resize in ("keep", "keep_ratio", "center_crop", "border")
            for size, encoding in ((64, "keep"), (1000, "jpeg"))
        }
        assert len(found) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_output_and_description_are_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = done(encoded(picture(), "PNG", exif=exif), resize="keep_ratio", size=30)
    turned = orientation >= 5
    size = (30, 45) if turned else (45, 30)
    assert (result.width, result.height) == size and opened(result).size == size
    assert (result.original_width, result.original_height) == ((60, 90) if turned else (90, 60))
    assert (result.data == done(encoded(picture(), "PNG"), resize="keep_ratio", size=30).data) == (orientation == 1)


def test_what_is_kept_apart_from_its_orientation_is_made_anew() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    result = done(encoded(picture(), "PNG", exif=exif))
    assert np.array_equal(np.asarray(opened(result)), np.rot90(np.asarray(picture()), -1))


@pytest.mark.parametrize(
    ("format", "encoding", "expected"),
    [
        ("JPEG", "keep", "JPEG"),
        ("GIF", "keep", "PNG"),
        ("TIFF", "keep", "PNG"),
        ("WEBP", "keep", "WEBP"),
        ("PNG", "jpeg", "JPEG"),
        ("PNG", "webp", "WEBP"),
        ("JPEG", "png", "PNG"),
    ],
)
def test_the_output_has_the_format_that_is_asked_for(format: str, encoding: str, expected: str) -> None:
    result = done(encoded(picture(), format), formats=ALL, encoding=encoding)
    assert (result.format, opened(result).format) == (format, expected)


def test_grey_stays_grey_unless_rgb_is_asked_for() -> None:
    data = encoded(picture().convert("L"), "JPEG")
    assert opened(done(data)).mode == "L"
    assert opened(done(data, colour="rgb")).mode == "RGB"
    assert done(data).pixel_hash == done(data, colour="rgb").pixel_hash


def test_16_bits_and_transparency_are_never_kept_as_they_were() -> None:
    image = Image.frombytes("I;16", (2, 1), b"\x00\x80\xff\xff")
    assert opened(done(encoded(image, "PNG"))).tobytes() == b"\x80\xff"
    clear = picture().convert("RGBA")
    clear.putalpha(0)
    assert set(opened(done(encoded(clear, "PNG"))).tobytes()) == {255}


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_its_first_frame_and_a_count(format: str) -> None:
    frames = [picture(seed=seed) for seed in range(4)]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=40, lossless=True)
    result = done(data, encoding="png")
    assert result.frames == 4 and getattr(opened(result), "n_frames", 1) == 1
    difference = np.asarray(opened(result), int) - np.asarray(frames[0], int)
    assert np.abs(difference).mean() < (12 if format == "GIF" else 0.01)  # GIF has 256 colours


def test_ten_thousand_frames_cost_no_more_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    one = encoded(picture(8, 8), "GIF")
    start = one.index(b"\x2c", 13 + (3 << (one[10] & 7) + 1))
    frame = one[start:-1]
    seen = []
    decode = module.decode
    monkeypatch.setattr(module, "decode", lambda source, *rest: seen.append(source) or decode(source, *rest))
    result = done(one[:-1] + frame * 9_999 + b";")
    assert result.frames == 10_000
    assert [len(source.stream.data) for source in seen] == [len(one)]


def test_the_same_bytes_come_out_of_every_run() -> None:
    for format in ("JPEG", "PNG", "WEBP", "GIF"):
        data = encoded(picture(), format)
        assert done(data, resize="keep_ratio", size=40) == done(data, resize="keep_ratio", size=40)


def test_a_side_that_the_output_format_cannot_hold_is_refused() -> None:
    data = encoded(Image.new("L", (17_000, 200)), "PNG")
    assert reason(data, encoding="webp") == "too_long"
    assert done(data, encoding="webp", resize="keep_ratio_largest").width == 256


def test_more_scans_than_allowed_are_refused_without_decoding() -> None:
    data = encoded(picture(), "JPEG", progressive=True)
    scans = data.count(b"\xff\xda")
    first = data.index(b"\xff\xda")
    second = data.index(b"\xff\xda", first + 2)
    bomb = data[:second] + data[first:second] * 2000 + data[second:]
    assert reason(bomb) == "too_many_scans"
    assert reason(data, max_scans=scans - 1) == "too_many_scans"
    done(data, max_scans=scans)


def test_memory_that_does_not_suffice_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    data = encoded(picture(), "PNG")
    monkeypatch.setattr(Image.Image, "load", fail)
    assert reason(data) == "out_of_memory"


def test_what_nobody_foresaw_costs_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("surprise")

    monkeypatch.setattr(module, "encode", fail)
    assert process(encoded(picture(), "GIF"), ImageConfig()) == ("decoder_error", "RuntimeError: surprise")


def test_profiles_are_applied_where_that_is_asked_for() -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ").replace(b"?XYZ", b"bXYZ")
    data = encoded(Image.new("RGB", (8, 8), (200, 30, 30)), "PNG", icc_profile=swapped)
    assert opened(done(data)).getpixel((0, 0)) == (200, 30, 30)
    red, _, blue = opened(done(data, icc=True)).getpixel((0, 0))
    assert blue > 150 > 60 > red
    assert done(data).pixel_hash == done(data, icc=True).pixel_hash
    broken = encoded(picture(), "PNG", icc_profile=b"no profile")
    assert opened(done(broken, icc=True)).tobytes() == picture().tobytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"formats": ("EPS",)}, "formats is one of JPEG, PNG, WEBP, GIF, BMP, TIFF; got 'EPS'"),
        ({"resize": "crop"}, "resize is one of keep, keep_ratio, keep_ratio_largest, center_crop, border; got 'crop'"),
        ({"quality": 0}, "quality is 1 to 100; got 0"),
        ({"max_pixels": 10**9}, "max_pixels is 1 to 178956970; got 1000000000"),
        ({"background": (0, 0, 256)}, "background is red, green and blue, each 0 to 255; got (0, 0, 256)"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError) as raised:
        ImageConfig(**settings)
    assert str(raised.value) == message


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(ALL), st.data())
def test_no_bytes_make_it_raise(format: str, data: st.DataObject) -> None:
    whole = bytearray(encoded(picture(16, 12), format))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    result = process(bytes(whole), ImageConfig(formats=ALL, max_pixels=100_000, strict=False))
    if isinstance(result, Processed):
        assert opened(result).size == (result.width, result.height)
    else:
        assert result.reason in REASONS


def test_real_photos_decode_and_keep_their_data() -> None:
    if not PHOTOS.exists():
        pytest.skip("no real photos here: caltech101_subset.tar is not in ../shared/data")
    with tarfile.open(PHOTOS) as archive:
        files = [member for member in archive if member.isfile()][::60]
        photos = [archive.extractfile(member).read() for member in files]  # type: ignore[union-attr]
    for photo in photos:
        kept = done(photo)
        assert np.array_equal(np.asarray(opened(kept)), np.asarray(Image.open(io.BytesIO(photo))))
        assert done(photo, resize="keep_ratio_largest", size=100, encoding="jpeg").width <= 100
