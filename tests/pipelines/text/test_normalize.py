import re
import unicodedata
from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.text.normalize import Form, NormalizeConfig, normalize

DEFAULT = NormalizeConfig()
OFF = NormalizeConfig(form="none", repair=False, strip_control=False, unify_spaces=False, collapse_whitespace=False)
AWKWARD = (
    " \t\n\r\x0b\x0c\x85\u2028\u2029\u00a0\u2009\u3000\u200b\u200c\u200d\u200e\ufeff\u00ad\u061c\u2066\ufffe\ufdd0"
    "aZé1.，。“”’Ã¶©â€™Â\x80\x9f\x1b[mœ中한ا\u064bक्ष\u0301\u0323\u0344\u1100\u1161ﬁ２½👩🏴\U000e0067\ufe0f❤\u0898\U00011938"
)
TEXTS = st.text(st.one_of(st.sampled_from(AWKWARD), st.characters(codec="utf-8")), max_size=30)


def one(text: str, config: NormalizeConfig = DEFAULT) -> str:
    return normalize(pa.array([text]), config)[0].as_py()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a\r\nb\rc\x0bd\u2028e\u2029f\x0cg", "a\nb\nc\nd\ne\nf\ng", id="line ends"),
        pytest.param("a\n\n\n\nb\n \t\n\n\nc", "a\n\nb\n\nc", id="blank lines"),
        pytest.param("\n \n  a b \n\n ", "a b", id="trim"),
        pytest.param("a  b \t c\td", "a b\tc\td", id="runs inside a line"),
        pytest.param("def f():\n    if x:\n\t\treturn  1  \n", "def f():\n    if x:\n\t\treturn 1", id="code"),
        pytest.param("a\u00a0b\u2009\u202fc\u205fd", "a b c d", id="spaces"),
        pytest.param(
            "\u3000\u3000第一段。\n\u3000\u3000第二段。\u3000完", "第一段。\n第二段。 完", id="Chinese indent"
        ),
        pytest.param("你好，世界！（全角）：“引号”……", "你好，世界！（全角）：“引号”……", id="Chinese punctuation"),
        pytest.param("ＡＢＣ１２３ ﬁ ½ ’", "ＡＢＣ１２３ ﬁ ½ ’", id="widths, ligatures, quotes"),
        pytest.param("e\u0301 \u1112\u1161\u11ab Å", "é 한 Å", id="NFC"),
        pytest.param("\ufeffa\u200bb\u00adc\u2060d\u200ee\u2066f\u2069g\u061ch\ufff9i", "abcdefghi", id="invisible"),
        pytest.param("a\x00b\x07c\x7fd\ufffee\ufdd0f\U0001ffffg", "abcdefg", id="controls and noncharacters"),
        pytest.param("می\u200cخواهم", "می\u200cخواهم", id="ZWNJ in Persian"),
        pytest.param("क्\u200dष क्\u200cष ක්\u200dර", "क्\u200dष क्\u200cष ක්\u200dර", id="joiners in Indic scripts"),
        pytest.param("👨\u200d👩\u200d👧 ❤\ufe0f\u200d🔥", "👨\u200d👩\u200d👧 ❤\ufe0f\u200d🔥", id="ZWJ in emoji"),
        pytest.param("a\u200db\u200cc 中\u200d文 \u200dx", "abc 中文 x", id="joiners that join nothing"),
        pytest.param("می\u200c\u200c\u200cخ", "می\u200cخ", id="one joiner is enough"),
        pytest.param("🏴\U000e0067\U000e0062\U000e007f", "🏴\U000e0067\U000e0062\U000e007f", id="flag of tags"),
        pytest.param("a\U000e0068\U000e0069", "a", id="hidden tags"),
        pytest.param("葛\U000e0100城市", "葛\U000e0100城市", id="ideographic variation"),
        pytest.param("schÃ¶n", "schön", id="mojibake"),
        pytest.param("&lt;p&gt;", "&lt;p&gt;", id="entities"),
        pytest.param("a\u200b\u0301", "á", id="a form that only cleaning reveals"),
        pytest.param("", "", id="empty"),
        pytest.param(" \u3000\n\u200b", "", id="nothing visible"),
    ],
)
def test_default_policy(text: str, expected: str) -> None:
    assert one(text) == expected


@pytest.mark.parametrize("form", ["NFC", "NFKC", "none"])
@given(texts=st.lists(TEXTS, max_size=4), collapse=st.booleans(), strip=st.booleans(), unify=st.booleans())
@settings(max_examples=300)
def test_normalising_twice_is_normalising_once(
    form: Form, texts: list[str], collapse: bool, strip: bool, unify: bool
) -> None:
    config = NormalizeConfig(form=form, collapse_whitespace=collapse, strip_control=strip, unify_spaces=unify)
    once = normalize(pa.array(texts, pa.string()), config)
    once.validate(full=True)
    assert normalize(once, config) is once, "a normalised array comes back uncopied"


@given(st.lists(TEXTS, max_size=6))
def test_a_text_does_not_depend_on_its_neighbours(texts: list[str]) -> None:
    assert normalize(pa.array(texts, pa.string())).to_pylist() == [one(text) for text in texts]


def by_lines(text: str) -> str:
    """The whitespace policy again, for texts of spaces, tabs and line feeds."""
    lines = []
    for line in text.split("\n"):
        body = line.strip(" \t")
        indent = line[: len(line) - len(line.lstrip(" \t"))] if body else ""
        lines.append(indent + re.sub("[ \t]{2,}", lambda run: "\t" * run[0].count("\t") or " ", body))
    return re.sub("\n{3,}", "\n\n", "\n".join(lines)).strip(" \t\n")


@given(st.text(" \t\nab中", max_size=40))
@settings(max_examples=1000)
def test_whitespace_policy(text: str) -> None:
    assert one(text) == by_lines(text)


@given(TEXTS)
def test_everything_switched_off_changes_nothing(text: str) -> None:
    texts = pa.array([text])
    assert normalize(texts, OFF) is texts


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_only_the_form_is_unicodedata_s_form(text: str) -> None:
    assigned_long_ago = all(ord(char) < 0x0860 for char in text)
    for form in ("NFC", "NFKC"):
        found = one(text, NormalizeConfig(form, False, False, False, False))
        if assigned_long_ago:
            assert found == unicodedata.normalize(form, text)


def test_the_form_is_that_of_unicode_13_on_every_python() -> None:
    """U+0898 (Unicode 14, class 230) would move behind U+0323 (class 220) on Python 3.11, and not on 3.10."""
    assert one("a\u0898\u0323") == "a\u0898\u0323"
    assert one("e\u0301\u0898o\u0308") == "é\u0898ö", "what stands around it is normalised"


def test_nfkc_folds_widths_on_request() -> None:
    assert one("ＡＢ，ﬁ\u3000x", NormalizeConfig(form="NFKC")) == "AB,fi x"


def test_switches() -> None:
    assert one("a\u200bb  c", NormalizeConfig(strip_control=False)) == "a\u200bb c"
    assert one("a  b\n\n\n\n", NormalizeConfig(collapse_whitespace=False)) == "a  b\n\n\n\n"
    assert one("a\u00a0b", NormalizeConfig(unify_spaces=False)) == "a\u00a0b"
    assert one("schÃ¶n", NormalizeConfig(repair=False)) == "schÃ¶n"
    assert one("a\n\n\n\n\nb", NormalizeConfig(max_newlines=3)) == "a\n\n\nb"


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_slices_nulls_and_types(kind: pa.DataType) -> None:
    texts = pa.array(["x ", " a\u00a0 b", None, "é", "e\u0301", "y "], kind).slice(1, 4)
    found = normalize(texts)
    assert found.type == kind and found.to_pylist() == ["a b", None, "é", "é"]
    assert normalize(pa.array([], kind)).type == kind
    assert normalize(pa.array([None], kind)).to_pylist() == [None]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="NFD"):
        NormalizeConfig(form="NFD")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_newlines"):
        NormalizeConfig(max_newlines=0)


@pytest.mark.parametrize("corpus", ["wikipedia_en", "wikipedia_zh", "documentation_versions", "laws_zh", "poetry_zh"])
def test_real_texts_lose_nothing_that_can_be_seen(corpus: str, real_texts: Callable[[str, int], list[str]]) -> None:
    texts = real_texts(corpus, 500_000)
    found = normalize(pa.array(texts), NormalizeConfig(form="none", repair=False)).to_pylist()
    invisible = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\xad\ue000-\uf8ff]+")
    for before, after in zip(texts, found, strict=True):
        assert invisible.sub("", before) == invisible.sub("", after)
