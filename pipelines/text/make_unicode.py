"""Make data/unicode.npz, the tables that pipelines.text.unicode loads. For developers: needs the `regex` package.

Run `python -m pipelines.text.make_unicode`. The archive holds runs of equal code points, stored without compression and
with fixed dates, so the same version of Unicode gives the same bytes on every machine.
"""

from __future__ import annotations

import io
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import regex

from pipelines.text.unicode import CODE_POINTS, DATA_PATH, SCRIPTS, Class, Flag

UNICODE_VERSION = "18.0.0"

# Code points assigned after Unicode 13.0 (DerivedAge.txt 18.0): Python 3.10, our oldest, does not normalise them.
_ASSIGNED_AFTER_13 = """
    558 58B-58C 5C8-5C9 61D 870-891 897-89F 8B5 8C8-8D2 B53-B54 C3C C5C-C5D CDC-CDD CF3 ECE 170D 1715 171F 180F
    1AC1-1AF0 1B4C 1B4E-1B4F 1B7D-1B7F 1C89-1C8A 1DFA 208F 209D-209F 20C0-20C4 2427-2429 2B96 2C2F 2C5F 2E53-2E5D
    2E60-2E63 2FFC-2FFF 31E4-31E5 31EF 9FFD-9FFF A7C0-A7C1 A7CB-A7DD A7E2 A7F1-A7F4 AB6C-AB6D FBC2-FBD2 FD40-FD4F
    FD90-FD91 FDC8-FDCF FDFE-FDFF 10570-1057A 1057C-1058A 1058C-10592 10594-10595 10597-105A1 105A3-105B1
    105B3-105B9 105BB-105BC 105C0-105F3 10780-10785 10787-107B0 107B2-107BF 10940-10959 10D40-10D65 10D69-10D85
    10D8E-10D8F 10EC2-10EC7 10EC9-10EEE 10EF0-10EFF 10F70-10F89 11070-11075 110C2 1123F-11241 11380-11389 1138B
    1138E 11390-113B5 113B7-113C0 113C2 113C5 113C7-113CA 113CC-113D5 113D7-113D8 113E1-113E2 116B9 116D0-116E3
    11740-11746 11AB0-11ABF 11B00-11B0A 11B60-11B67 11BC0-11BE1 11BF0-11BF9 11DB0-11DDB 11DE0-11DE9 11DF0-11DF1
    11F00-11F10 11F12-11F3A 11F3E-11F5A 1246F 12475-1247F 12550-12686 12F90-12FF2 1342F 13439-13455 13460-143FA
    16100-16139 16A70-16ABE 16AC0-16AC9 16D40-16D79 16EA0-16EB8 16EBB-16ED3 16FF2-16FF6 187F8-187FF 18CD6-18CDA
    18CFF 18D09-18D20 18D80-18DF2 18E00-19191 191A0-191D2 1AFF0-1AFF3 1AFF5-1AFFB 1AFFD-1AFFE 1B11F-1B128 1B132
    1B155 1B168 1CC00-1CCFC 1CD00-1CEB3 1CEBA-1CED0 1CED2-1CED4 1CEDD-1CEFD 1CF00-1CF2D 1CF30-1CF46 1CF50-1CFC3
    1D127-1D128 1D1E9-1D1FF 1D250-1D281 1D2C0-1D2D3 1D6A6 1DB00-1DB1C 1DF00-1DF81 1DF90-1DF96 1DFCD-1DFFF
    1E030-1E06D 1E08F 1E290-1E2AE 1E4D0-1E4F9 1E5D0-1E5FA 1E5FF 1E6C0-1E6DE 1E6E0-1E6F5 1E6FE-1E6FF 1E7E0-1E7E6
    1E7E8-1E7EB 1E7ED-1E7EE 1E7F0-1E7FE 1F1AE 1F6D8-1F6D9 1F6DC-1F6DF 1F774-1F77F 1F7D9-1F7DB 1F7F0-1F7FF
    1F8B2-1F8BB 1F8C0-1F8C1 1F8D0-1F8D8 1F979 1F9CC 1FA54-1FA57 1FA75-1FA77 1FA7B-1FA7C 1FA87-1FA8F 1FAA9-1FAAF
    1FAB7-1FABF 1FAC3-1FAC6 1FAC8 1FACC-1FACF 1FAD7-1FADD 1FADF-1FAEB 1FAEF-1FAFA 1FBCB-1FBEF 1FBFA 2A6DE-2A6DF
    2B735-2B73F 2B81E 2CEA2-2CEAD 2EBF0-2EE5D 31350-33479 3D000-3FC3F
"""

_CHARACTER_SCRIPTS = ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar")
_SCRIPT_PROPERTIES = {"han": ("Han",), "kana": ("Hiragana", "Katakana")}
_ALL = "".join(map(chr, [*range(0xD800), *range(0xE000, CODE_POINTS)]))  # all but the surrogates


def members(pattern: str) -> np.ndarray:
    """Mark the code points that a character class matches: bool[CODE_POINTS]."""
    mask = np.zeros(CODE_POINTS, bool)
    for match in regex.finditer(f"(?:{pattern})+", _ALL, regex.VERSION1):
        mask[ord(match[0][0]) : ord(match[0][-1]) + 1] = True
    mask[0xD800:0xE000] = False
    return mask


def classes() -> np.ndarray:
    """Classify every code point: uint8[CODE_POINTS] of `Class`; a later line overrides an earlier one."""
    table = np.full(CODE_POINTS, Class.OTHER, np.uint8)
    for pattern, value in (
        (r"\p{L}", Class.LETTER),
        (r"\p{N}", Class.DIGIT),
        (r"\p{M}", Class.MARK),
        (r"\p{P}", Class.PUNCTUATION),
        (r"\p{S}", Class.SYMBOL),
        (r"\p{Cc}", Class.CONTROL),
        (r"[\p{Cf}\p{Variation_Selector}]", Class.FORMAT),
        (r"\p{White_Space}", Class.SPACE),
    ):
        table[members(pattern)] = value
    names = "".join(rf"\p{{Script={name}}}" for name in _CHARACTER_SCRIPTS)
    # Nl: the Han numerals 〇 and 〡; script extensions: signs shared by the kana, such as ー
    table[members(rf"[[{names}]&&[\p{{L}}\p{{Nl}}]]")] = Class.CHARACTER
    table[members(r"[\p{Script=Common}&&\p{L}&&[\p{scx=Han}\p{scx=Hira}\p{scx=Kana}]]")] = Class.CHARACTER
    return table


def scripts() -> np.ndarray:
    """Map every code point to its index in SCRIPTS: uint8[CODE_POINTS]."""
    table = np.full(CODE_POINTS, SCRIPTS.index("other"), np.uint8)
    table[members(r"[\p{Script=Common}\p{Script=Inherited}\p{Script=Unknown}]")] = SCRIPTS.index("common")
    table[0xD800:0xE000] = SCRIPTS.index("common")
    table[members(r"[\p{Script=Common}&&\p{L}&&[\p{scx=Hira}\p{scx=Kana}]]")] = SCRIPTS.index("kana")
    table[members(r"[\p{Script=Common}&&\p{L}&&\p{scx=Han}]")] = SCRIPTS.index("han")
    for index, name in enumerate(SCRIPTS):
        if name not in ("common", "other"):
            for script in _SCRIPT_PROPERTIES.get(name, (name.capitalize(),)):
                table[members(rf"\p{{Script={script}}}")] = index
    return table


def flags() -> np.ndarray:
    """Combine the `Flag` bits of every code point: uint8[CODE_POINTS]."""
    table = np.zeros(CODE_POINTS, np.uint8)
    table[members(r"[\p{Lu}\p{Lt}]")] |= np.uint8(Flag.UPPER)
    moving = members(r"\P{ccc=0}")
    table[moving | members(r"[\p{NFC_QC=No}\p{NFC_QC=Maybe}]")] |= np.uint8(Flag.NFC)
    table[moving | members(r"[\p{NFKC_QC=No}\p{NFKC_QC=Maybe}]")] |= np.uint8(Flag.NFKC)
    new = members(r"\p{Cn}")
    for run in _ASSIGNED_AFTER_13.split():
        first, _, last = run.partition("-")
        new[int(first, 16) : int(last or first, 16) + 1] = True
    table[new] |= np.uint8(Flag.NEW)
    return table


def folding() -> np.ndarray:
    """Map every code point to its simple case folding (CaseFolding.txt, status C and S): uint32[CODE_POINTS]."""
    table = np.arange(CODE_POINTS, dtype=np.uint32)
    for char in _ALL:
        table[ord(char)] = ord(regex._regex.fold_case(regex.IGNORECASE | regex.UNICODE, char))
    table[ord("I")] = ord("i")  # regex folds no I, for the sake of Turkish
    return table


def archive() -> bytes:
    """Build the bytes of data/unicode.npz."""
    runs = {"class": classes(), "script": scripts(), "flags": flags()}
    changes = np.zeros(CODE_POINTS, bool)
    changes[0] = True
    for table in runs.values():
        changes[1:] |= table[1:] != table[:-1]
    starts = np.flatnonzero(changes)
    fold = folding()
    folded = np.flatnonzero(fold != np.arange(CODE_POINTS))
    arrays = {
        "version": np.array([int(part) for part in UNICODE_VERSION.split(".")], "<u1"),
        "start": starts.astype("<u4"),
        **{name: table[starts] for name, table in runs.items()},
        "fold_from": folded.astype("<u4"),
        "fold_to": fold[folded].astype("<u4"),
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as file:
        for name, values in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, values, version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # one value on every platform
            file.writestr(info, member.getvalue())
    return out.getvalue()


def check_version() -> None:
    """Raise RuntimeError where the installed `regex` speaks another version of Unicode than this module."""
    if f"supports Unicode {UNICODE_VERSION}" not in (metadata.distribution("regex").read_text("METADATA") or ""):
        raise RuntimeError(
            f"the installed regex does not support Unicode {UNICODE_VERSION}: install one that does, or update "
            "UNICODE_VERSION and _ASSIGNED_AFTER_13 here"
        )


if __name__ == "__main__":
    check_version()
    Path(DATA_PATH).write_bytes(archive())
