"""Personal data made of words: e-mail addresses, secrets and keys, IBANs.

Works on one window at a time. Every expression has bounded repeats over classes that do not meet, so none can go back
further than it has a fixed right to.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

import numpy as np

from pipelines.text.pii_numbers import Found

# --- e-mail -------------------------------------------------------------------------------------------------------

_LETTERS = "A-Za-z0-9\u00c0-\u024f"
_LOCAL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._%+'\-]{0,62}[A-Za-z0-9_+\-])?\Z")
_LOCAL_REACH = 65  # RFC 5321, 4.5.3.1.1: 64 octets
_DOMAIN = re.compile(
    rf"(?:[{_LETTERS}-]{{1,63}}\.){{1,8}}(?:xn--[A-Za-z0-9-]{{2,59}}|[A-Za-z]{{2,24}})(?![{_LETTERS}]|-[A-Za-z0-9])"
)
_REPOSITORY = re.compile(r":(?:[~/]|\d{0,5}[\w.-]{1,100}/)")  # host:path of scp, ssh and git
_USERINFO = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]{1,20}://[^\s/@]{0,128}\Z")
# what stands after the dot in names of files and is no top-level domain: icon@2x.png
_FILES = (
    "png jpg jpeg gif svg webp bmp ico tif tiff css scss less js jsx mjs ts tsx vue html htm xhtml xml json yaml "
    "yml toml txt pdf doc docx xls xlsx ppt pptx exe dll bin gz bz tar zst rar iso img mp3 mp4 avi mkv wav ogg flac "
    "java class jar cpp hpp sql log lock conf cfg ini local localhost internal latest sum onion"
)
_NOT_DOMAINS = frozenset(_FILES.split())


def email(text: str, at: int) -> Iterator[Found]:
    """Find the e-mail address around the at sign text[at]; text is folded."""
    local = _search_back(text, at)
    domain = _DOMAIN.match(text, at + 1)
    if local < 0 or domain is None:
        return
    labels = domain[0].split(".")
    if labels[-1].lower() in _NOT_DOMAINS or any(label.startswith("-") or label.endswith("-") for label in labels):
        return
    if (local and text[local - 1] in "@#/") or _REPOSITORY.match(text, domain.end()):
        return
    if "://" in text[:at] and _USERINFO.search(text[:at]):
        return
    yield local, domain.end(), "email"


def _search_back(text: str, at: int) -> int:
    """Give the first character of the local part that ends before text[at], or -1."""
    start = at
    while (
        start
        and at - start < _LOCAL_REACH
        and (char := text[start - 1]).isascii()
        and (char.isalnum() or char in "._%+'-")
    ):
        start -= 1
    while start < at and not text[start].isalnum():
        start += 1
    return start if start < at and _LOCAL.match(text, start, at) and ".." not in text[start:at] else -1


# --- secrets ------------------------------------------------------------------------------------------------------

# After the rules of gitleaks (config/gitleaks.toml), with bounded lengths. Alternatives begin with different letters.
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}"
    r"|gh[pousr]_[A-Za-z0-9]{36,76}"
    r"|github_pat_[A-Za-z0-9_]{60,90}"
    r"|glpat-[A-Za-z0-9_-]{20,64}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,200}"
    r"|xapp-\d-[A-Za-z0-9-]{20,200}"
    r"|https://hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9+/]{40,60}"
    r"|[rs]k_(?:live|test|prod)_[A-Za-z0-9]{10,99}"
    r"|AIza[A-Za-z0-9_-]{35}"
    r"|ya29\.[A-Za-z0-9_-]{20,400}"
    r"|GOCSPX-[A-Za-z0-9_-]{28}"
    r"|sk-ant-[a-z]{3,8}\d\d-[A-Za-z0-9_-]{80,120}"
    r"|sk-(?:proj-|svcacct-|admin-|or-v1-)?[A-Za-z0-9_-]{20,200}"
    r"|hf_[A-Za-z]{34}"
    r"|npm_[A-Za-z0-9]{36}"
    r"|pypi-AgE[A-Za-z0-9_-]{50,400}"
    r"|SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}"
    r"|LTAI[A-Za-z0-9]{16,24}"
    r"|do[oprt]_v1_[a-f0-9]{64}"
    r"|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"
    r"|eyJ[A-Za-z0-9_-]{8,2000}\.eyJ[A-Za-z0-9_-]{8,4000}\.[A-Za-z0-9_-]{10,700}"
    r")(?![A-Za-z0-9])"
)
_KEY = (
    r"(?:(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|"
    r"(?:api|access|secret|private|auth|account|encryption|master)[ _\-]?key|authorization)"
    r"|密码|密碼|口令|密钥|密鑰|令牌)"
)
_ASSIGNED = re.compile(
    rf"({_KEY})[\"'`\]*]{{0,3}} {{0,3}}(?:是|为)?[\"'`]? {{0,3}}"
    rf"(?::=|=>|==?|:|(?<=[是为])(?=[\"'A-Za-z0-9]))[ \t]{{0,3}}",
    re.IGNORECASE,
)
_PUBLIC = re.compile(r"public[ _\-]?(?:key)?[ _\-]?\Z", re.IGNORECASE)
_SCHEME = re.compile(r"(?:bearer|basic|token) {1,3}", re.IGNORECASE)
_QUOTED = re.compile(r"\"([^\"\s]{6,256})\"|'([^'\s]{6,256})'|`([^`\s]{6,256})`")
_BARE = re.compile(r"[!-%*+\-./0-9:<>?@A-Z\[\]^_a-z{}~]{6,256}={0,2}")
_WORD_LIKE = re.compile(
    r"your|example|change|xxx|\*\*\*|\.\.\.|placeholder|dummy|sample|redacted|\$\{|\$\(|\{\{|%[sd](?![A-Za-z0-9])|%\(|<|\[email|\[secret|process\.env|getenv",
    re.IGNORECASE,
)
_PLAIN_WORDS = re.compile(r"[A-Za-z]+(?:[._\-/][A-Za-z]*)*\Z")
_CODE = re.compile(r"[A-Za-z_]\w*(?:\.\w+)+\Z|.*[\[\](){}]|[/~$%&<@\\.]|0x|https?:|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}")
_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+|[_\-]+|[^A-Za-z0-9_\-]+")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]{1,20}://([^\s/:@]{0,64}):([^\s/@]{4,128})\Z")
_WEAK = frozenset(
    ("password", "passwd", "pass", "guest", "anonymous", "secret", "user", "pwd", "test", "admin", "root", "token")
)
_BEGIN = re.compile(rb"-----BEGIN ((?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?)-----")
_LONGEST_HEADER, _SHORTEST_KEY, _LONGEST_KEY = 64, 32, 1 << 16


def entropy(text: str) -> float:
    """Bits a character, of the distribution of the characters themselves (Shannon)."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def tokens(text: str) -> Iterator[Found]:
    """Find tokens whose prefix says what they are."""
    for match in _TOKEN.finditer(text):
        value = match[0]
        if value.startswith("sk-") and (
            entropy(value) < 3.5 or not any(map(str.isdigit, value)) or (value.islower() and "-" in value[10:])
        ):
            continue
        yield match.start(), match.end(), "secret"


def assignment(text: str, at: int) -> Iterator[Found]:
    """Find the secret that is assigned at the sign text[at]; text is folded."""
    key = None
    for match in _ASSIGNED.finditer(text, max(0, at - 32), at + 8):
        if match.start() < at < match.end():
            key = match
    if key is None:
        return
    name, begin = key[1].lower(), key.end()
    if _PUBLIC.search(text, max(0, key.start() - 12), key.start()):
        return
    if scheme := _SCHEME.match(text, begin + (text[begin : begin + 1] in "\"'")):
        begin = scheme.end()
    elif name == "authorization":
        return
    quoted = _QUOTED.match(text, begin)
    if quoted:
        group = quoted.lastindex or 1
        begin, value = quoted.start(group), quoted[group]
    else:
        bare = _BARE.match(text, begin)
        if bare is None:
            return
        value = bare[0].rstrip(".:!?" if not name.isascii() else ".:?")
    is_password = name.startswith(("pass", "pwd", "密码", "密碼", "口令"))
    if _is_secret(value, is_password):
        yield begin, begin + len(value), "secret"


def _is_secret(value: str, is_password: bool) -> bool:
    """Tell a secret from a word, a variable, a path, a placeholder. Passwords may be short, keys have entropy."""
    if _WORD_LIKE.search(value) and (len(value) < 32 or entropy(value) < 4.2):
        return False
    if not value.isascii() or _CODE.match(value):
        return False
    if len(value) >= 16 and 3 * len(_PARTS.findall(value)) > len(value):  # words would be longer than these pieces
        return True
    if _PLAIN_WORDS.match(value):
        return False
    if value.lower() in _WEAK or len(set(value)) < 4:
        return False
    if value.isdigit():
        return is_password and 6 <= len(value) <= 16
    has_digit = any(map(str.isdigit, value))
    if is_password:
        return has_digit or (len(value) >= 8 and not value.isalpha() and entropy(value) > 2.5)
    if not has_digit or entropy(value) < 3.0 or _is_name(value):
        return False
    return len(value) >= 16 or (len(value) >= 10 and any(map(str.isupper, value)) and any(map(str.islower, value)))


def _is_name(value: str) -> bool:
    """Say whether a value is made of words and numbers, as Base64Encoded and utf8_general-ci are."""
    for part in _PARTS.findall(value):
        if part.isdigit() and len(part) > 4:
            return False
        if part[0] not in "_-" and not part.isdigit() and not (part.isalpha() and len(part) > 2):
            return False
    return True


def userinfo(text: str, at: int) -> Iterator[Found]:
    """Find the password in the part of a URL that ends at the at sign text[at]."""
    if "://" not in text[:at]:
        return
    match = _URL.search(text[:at])
    if match is None:
        return
    value = match[2]
    if (
        value.lower() in _WEAK
        or _WORD_LIKE.search(value)
        or value[0] in "$<{%*"
        or (value.isalpha() and value.islower())
    ):
        return
    yield at - len(value), at, "secret"


def pem(data: memoryview, at: int, last: int) -> int:
    """Give the end of the private key block whose header begins at data[at]; 0 where there is none before `last`."""
    block = bytes(data[at : min(last, at + _LONGEST_HEADER)])
    begin = _BEGIN.match(block)
    if begin is None:
        return 0
    body = at + begin.end()
    end = body
    while end < last and end - body < _LONGEST_KEY:
        piece = bytes(data[end : min(last, end + 4096)])
        dashes = piece.find(b"-----")
        if dashes >= 0:
            end += dashes
            break
        end += max(1, len(piece) - 4)
    closing = b"-----END " + begin[1] + b"-----"
    if end - body < _SHORTEST_KEY or bytes(data[end : min(last, end + len(closing))]) != closing:
        return 0
    return end + len(closing)


# --- IBAN ---------------------------------------------------------------------------------------------------------

# ISO 13616, from the SWIFT registry: characters of an IBAN by country
_LENGTHS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 "
    "ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 "
    "LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 "
    "PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 "
    "YE30"
)


def iban_lengths() -> np.ndarray:
    """Give the lengths as `pii_screen.words` takes them: uint8[676]."""
    table = np.zeros(676, np.uint8)
    for entry in _LENGTHS.split():
        table[(ord(entry[0]) - 65) * 26 + ord(entry[1]) - 65] = int(entry[2:])
    return table


def is_iban(value: str) -> bool:
    """Check the remainder by 97 (ISO 7064 MOD 97-10); the length was checked by the screen."""
    return int("".join(str(int(char, 36)) for char in value[4:] + value[:4])) % 97 == 1 and "02" <= value[2:4] <= "98"


def iban(text: str, at: int, end: int) -> Iterator[Found]:
    """Find an IBAN in a window of the screen, which ends where its country says."""
    before, after = text[at - 1 : at], text[end : end + 1]
    if (before.isascii() and before.isalnum()) or (after.isascii() and (after.isalnum() or after == "_")):
        return
    if is_iban(text[at:end].replace(" ", "")):
        yield at, end, "iban"
