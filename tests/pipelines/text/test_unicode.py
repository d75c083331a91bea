import unicodedata
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.text.unicode import CODE_POINTS, DATA_PATH, SCRIPTS, Class, Flag, decode, tables, utf8


def test_the_table_file_is_what_the_generator_makes() -> None:
    pytest.importorskip("regex", reason="the generator needs the regex package")
    from pipelines.text import make_unicode

    try:
        make_unicode.check_version()
    except RuntimeError as error:
        pytest.skip(str(error))
    assert make_unicode.archive() == DATA_PATH.read_bytes()


def test_tables_are_small_on_disk_and_state_their_version() -> None:
    assert DATA_PATH.stat().st_size < 64 * 1024
    assert tables().version == "18.0.0"


@pytest.mark.parametrize(
    ("char", "kind", "script"),
    [
        ("A", Class.LETTER, "latin"),
        ("é", Class.LETTER, "latin"),
        ("я", Class.LETTER, "cyrillic"),
        ("한", Class.LETTER, "hangul"),
        ("ℵ", Class.LETTER, "common"),
        ("中", Class.CHARACTER, "han"),
        ("々", Class.CHARACTER, "han"),
        ("〇", Class.CHARACTER, "han"),
        ("𠀀", Class.CHARACTER, "han"),
        ("ー", Class.CHARACTER, "kana"),
        ("ｶ", Class.CHARACTER, "kana"),
        ("ก", Class.CHARACTER, "thai"),
        ("ລ", Class.CHARACTER, "lao"),
        ("ក", Class.CHARACTER, "khmer"),
        ("က", Class.CHARACTER, "myanmar"),
        ("ั", Class.MARK, "thai"),
        ("\u0301", Class.MARK, "common"),
        ("५", Class.DIGIT, "devanagari"),
        ("①", Class.DIGIT, "common"),
        ("，", Class.PUNCTUATION, "common"),
        ("#", Class.PUNCTUATION, "common"),
        ("€", Class.SYMBOL, "common"),
        ("😀", Class.SYMBOL, "common"),
        ("\u3000", Class.SPACE, "common"),
        ("\x85", Class.SPACE, "common"),
        ("\x00", Class.CONTROL, "common"),
        ("\u200b", Class.FORMAT, "common"),
        ("\ufe0f", Class.FORMAT, "common"),
        ("\ue000", Class.OTHER, "common"),
    ],
)
def test_class_and_script(char: str, kind: Class, script: str) -> None:
    assert tables().classes[ord(char)] == kind
    assert SCRIPTS[tables().scripts[ord(char)]] == script


def test_properties_of_characters_as_old_as_every_python_agree_with_unicodedata() -> None:
    old = [cp for cp in np.flatnonzero(tables().flags & Flag.NEW == 0) if not 0xD800 <= cp < 0xE000]
    flags, fold = tables().flags, tables().fold
    for cp in old:
        char = chr(cp)
        assert bool(flags[cp] & Flag.UPPER) == (unicodedata.category(char) in ("Lu", "Lt")), hex(cp)
        if len(char.casefold()) == 1:
            assert fold[cp] == ord(char.casefold()), hex(cp)
        for form, flag in (("NFC", Flag.NFC), ("NFKC", Flag.NFKC)):
            if unicodedata.normalize(form, char) != char or unicodedata.combining(char):
                assert flags[cp] & flag, f"{form} can change {cp:x}, and the table denies it"


def test_folding_twice_is_folding_once() -> None:
    fold = tables().fold
    assert np.array_equal(fold[fold], fold)
    assert fold[ord("İ")] == ord("İ") and fold[ord("ẞ")] == ord("ß"), "simple folding, not full or Turkic"


def test_info_packs_class_flags_and_script() -> None:
    loaded = tables()
    assert np.array_equal(loaded.info & 15, loaded.classes)
    assert np.array_equal(loaded.info >> 4 & 15, loaded.flags)
    assert np.array_equal(loaded.info >> 8, loaded.scripts)


@given(st.text(min_size=1))
def test_decoding_reads_every_character(text: str) -> None:
    data, at, found = np.frombuffer(text.encode(), np.uint8), 0, []
    while at < len(data):
        code, width = decode(data, at, len(data))
        found.append(chr(code))
        at += width
    assert "".join(found) == text


@pytest.mark.parametrize("char", ["é", "中", "😀"])
def test_a_character_cut_short_is_not_read_beyond_its_end(char: str) -> None:
    data = np.frombuffer(char.encode(), np.uint8)
    for end in range(1, len(data)):
        assert decode(data, 0, end) == (0xFFFD, 1)


def test_no_bytes_at_all_decode_beyond_the_tables() -> None:
    assert decode(np.full(4, 0xFF, np.uint8), 0, 4)[0] < CODE_POINTS


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_utf8_of_slices_and_nulls(kind: pa.DataType) -> None:
    values = ["skipped", "ab", None, "", "中文", "cut off"]
    data, offsets = utf8(pa.array(values, kind).slice(1, 4))
    assert [bytes(data[a:b]).decode() for a, b in pairwise(offsets)] == ["ab", "", "", "中文"]


def test_bytes_behind_a_null_are_not_text() -> None:
    offsets, validity = pa.py_buffer(np.array([0, 2, 4], np.int32)), pa.py_buffer(bytes([0b10]))
    texts = pa.Array.from_buffers(pa.string(), 2, [validity, offsets, pa.py_buffer(b"xxab")])
    data, ends = utf8(texts)
    assert ends[1] == ends[0] and bytes(data[ends[1] : ends[2]]) == b"ab"


def test_utf8_copies_no_text_and_takes_chunks() -> None:
    texts = pa.array(["ab", "c"])
    assert utf8(texts)[0].ctypes.data == texts.buffers()[2].address
    assert utf8(pa.chunked_array([texts, texts]))[1].tolist() == [0, 2, 3, 5, 6]


@pytest.mark.parametrize("texts", [pa.array([], pa.string()), pa.array(["", ""]), pa.array([None], pa.string())])
def test_arrays_without_text(texts: pa.Array) -> None:
    assert utf8(texts)[1].tolist() == [0] * (len(texts) + 1)


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="int64"):
        utf8(pa.array([1]))
