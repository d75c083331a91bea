"""Personal data made of digits: phone numbers, payment cards, Chinese resident identity numbers.

Works on one window at a time, folded to ASCII (see `fold`): full-width digits, typographic dashes and spaces read as
plain ones. Every expression is anchored by the caller and of bounded length.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator
from datetime import date

Found = tuple[int, int, str]  # first character, end, kind

_FOLD = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_FOLD |= {ord(char): ord("-") for char in "‐‑‒–—―−"} | {
    ord(char): ord(" ") for char in "\u00a0\u2002\u2003\u2009\u202f\u3000"
}

_compile = functools.partial(re.compile, flags=re.ASCII)  # a digit of another script is none of these


def fold(text: str) -> str:
    """Map full-width forms, dashes and spaces to ASCII, character for character."""
    return text if text.isascii() else text.translate(_FOLD)


# --- what stands before and after ---------------------------------------------------------------------------------


def label(words: str, chinese: str, ends: str, gap: int = 4) -> re.Pattern[str]:
    """Make the pattern of a label at the end of a text: one of the words, then perhaps one of `ends`, then signs.

    words: expressions with blanks between them, whole words in any case. chinese: the same without borders of words.
    """
    either = rf"(?:(?<![A-Za-z0-9])(?:{'|'.join(words.split())})|{'|'.join(chinese.split())})"
    sign = r"(?:[^\w\n]|_)"
    return re.compile(rf"{either}{sign}{{0,3}}(?:{'|'.join(ends.split())})?{sign}{{0,{gap}}}$", re.IGNORECASE)


_PHONE_LABEL = label(
    r"t[eé]l(?:[eé]fon[eo]?|ephone)?s? phones? mobile mob cell(?:phone)? handy (?:tele)?fax call(?:ing)? dial whatsapp "
    r"hotline sms text ring ph t(?=[:.]) m(?=:) f(?=:) p(?=:)",
    "电话 電話 手机 手機 传真 傳真 热线 熱線 座机 固话 联系方式 聯絡 致电 致電 拨打 撥打 拨 来电 微信 短信",
    r"no numbers? 号码 號碼 号 (?:me|us)(?:\s(?:at|on))? at on is 为 是 office home work 或",
)
_OTHER_LABEL = label(
    "order invoice tracking serial ref reference isbn issn pmid id sku uid item part patent case doi imei qq ean "
    "account n x no nr total time timestamp size bytes count(?:er)? offset len(?:gth)? sum value zip block sector",
    "订单 訂單 运单 快递 单号 單號 编号 編號 工号 学号 货号 案号 备案 流水 发票 合同 "
    "条码 编码 編碼 代码 邮编 序列 群号 第 ICP备",
    "no num(?:ber)? 号码 号 號",
    gap=3,
)
_CARD_LABEL = label(
    r"card visa mastercard amex diners credit debit pay\swith cc",
    "卡 账户 帳戶 账号 帐号 汇款至 支付",
    "no number 号码 号 號 为 是 is",
)
_ONE, _FOUR, _SIX = (_compile(rf"(?<!\d)\d{{{digits}}}") for digits in (1, 4, 6))  # where a group of digits begins
_IBAN_BEFORE = _compile(r"(?<!\w)[A-Z]{2}\d{2} (?:[A-Z0-9]{4} ){0,6}$")  # of one with a wrong digit
_UNIT = re.compile(
    r" ?(?:[元人万萬亿億个個次名米吨噸%°′″‰$€£¥]|公里|美元|people|million|billion|km|kg|m[²³]|USD|EUR|bytes?\b)"
)
_LABEL_REACH = 32
_LABEL_END = re.compile(r"[^\W\d_](?:[^\w\n]|_){0,7}$")  # all labels end in a letter


def _is_after(label: re.Pattern[str], before: str) -> bool:
    """Say whether a label stands at the end of what is before a number; quickly, where no word does."""
    return _LABEL_END.search(before, max(0, len(before) - 8)) is not None and label.search(before) is not None


_EMPHASIS_BEFORE = _compile(r"(?<!\w)_{1,3}$")
_EMPHASIS_AFTER = _compile(r"_{1,3}(?!\w)")
_BORDERS = "_=&:/-@,"  # of an identity number, whose date and check character say enough
_LONG_BEFORE = _compile(r"(?<![\w.])\d{11,19}[Xx]?[-:=&_]$")  # a value of its own, not a part of what follows
_LONG_AFTER = _compile(r"[-:=&_]\d{11,19}[Xx]?(?![\w.])")


def _is_glued_left(text: str, at: int, borders: str = "") -> bool:
    """Say whether a number that begins here is a part of something longer: a word, a path, a decimal, a range."""
    if at == 0:
        return False
    char = text[at - 1]
    if char in borders:
        return False
    if char in "-:=&_" and (
        _EMPHASIS_BEFORE.search(text[max(0, at - 5) : at]) or _LONG_BEFORE.search(text[max(0, at - 24) : at])
    ):
        return False
    if char.isascii() and (char.isalnum() or char in "_+$€£¥#\\"):
        return True
    if char in "€£¥":
        return True
    if at < 2 or not (text[at - 2].isascii() and text[at - 2].isalnum()):
        return char in "-." and at >= 2 and text[at - 2] in "-./"
    if char == "/":
        return not re.search(r"\d[\d\-]{5,}$", text[max(0, at - 16) : at - 1])
    if char in ",:":
        return text[at - 2].isdigit() and (char == ":" or not re.search(r"\d{5,}$", text[max(0, at - 8) : at - 1]))
    return char in "-.=%&@"


def _is_glued_right(text: str, at: int, borders: str = "") -> bool:
    """Say whether a number that ends here goes on."""
    if at >= len(text):
        return False
    char, after = text[at], text[at + 1 : at + 2]
    if char in borders or (char in "-:=&_" and (_EMPHASIS_AFTER.match(text, at) or _LONG_AFTER.match(text, at))):
        return False
    if char.isascii() and (char.isalnum() or char in "_%@\\"):
        return True
    if char == ",":
        return re.match(r",\d{3}(?!\d)", text[at : at + 5]) is not None
    if char == "/":
        return after.isascii() and after.isalnum() and not re.match(r"/\+?[\d(][\d\-() ]{5,}", text[at : at + 20])
    return char in "-.=:" and after.isascii() and after.isalnum()


def _before(text: str, at: int) -> str:
    return text[max(0, at - _LABEL_REACH) : at]


# --- identity numbers and cards -----------------------------------------------------------------------------------

_IDENTITY = _compile(r"\d{17}[\dXx]|\d{6}([ -])\d{8}\1\d{3}[\dXx]")
# GB/T 2260: the first two digits of the codes of provinces; 81 to 83 are Hong Kong, Macao and Taiwan
_PROVINCES = frozenset(
    map(
        str,
        (
            *range(11, 16),
            *range(21, 24),
            *range(31, 38),
            *range(41, 47),
            *range(50, 55),
            *range(61, 66),
            71,
            81,
            82,
            83,
        ),
    )
)
_CARD = _compile(r"\d{13,19}|\d{4}([ -])\d{6}\1\d{4,5}|\d{4}([ -])\d{4}\2\d{4}\2\d{4}(?:\2\d{1,3})?|\d{6}[ -]\d{13}")
# ISO/IEC 7812 prefixes as the networks publish them: first and last of the range, lengths
_ISSUERS = (
    ("4", "4", (13, 16, 19)),  # Visa
    ("51", "55", (16,)),  # Mastercard
    ("2221", "2720", (16,)),
    ("34", "34", (15,)),  # American Express
    ("37", "37", (15,)),
    ("6011", "6011", (16, 17, 18, 19)),  # Discover
    ("644", "659", (16, 17, 18, 19)),
    ("300", "305", (14, 16)),  # Diners Club
    ("36", "36", (14, 16)),
    ("38", "39", (14, 16)),
    ("3528", "3589", (16, 17, 18, 19)),  # JCB
    ("62", "62", (16, 17, 18, 19)),  # UnionPay
    ("2200", "2204", (16, 17, 18, 19)),  # Mir
    ("50", "50", (16, 18, 19)),  # Maestro
    ("56", "58", (16, 18, 19)),
    ("6304", "6304", (16, 18, 19)),
    ("6759", "6763", (16, 18, 19)),
    ("60", "60", (16,)),  # RuPay
    ("81", "81", (16,)),
)
_EXPIRY = _compile(r"[:/](?:0[1-9]|1[0-2])[:/-]?(?:20)?\d\d(?!\d)")
_USUAL_LENGTHS = (15, 16, 19)  # others in one run of digits are more often something else


def is_identity(value: str) -> bool:
    """Check 18 characters: province, date of birth, check character (GB 11643-1999, ISO 7064 MOD 11-2)."""
    if value[:2] not in _PROVINCES:
        return False
    try:
        born = date(int(value[6:10]), int(value[10:12]), int(value[12:14]))
    except ValueError:
        return False
    total = sum(int(digit) * (1 << 17 - i) % 11 for i, digit in enumerate(value[:17]))
    return 1850 <= born.year < 2100 and "10X98765432"[total % 11] == value[17].upper()


def is_card(digits: str) -> bool:
    """Check Luhn's sum, the issuer's prefix and its lengths."""
    if not any(low <= digits[: len(low)] <= high and len(digits) in lengths for low, high, lengths in _ISSUERS):
        return False
    total = sum(map(int, digits[-1::-2])) + sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return total % 10 == 0 and len(set(digits)) > 1


def identities(text: str, first: int, last: int) -> Iterator[Found]:
    """Find resident identity numbers between two places of a text."""
    for start in _SIX.finditer(text, first, last):
        at = start.start()
        match = _IDENTITY.match(text, at)
        if (
            match
            and is_identity(re.sub(r"[ -]", "", match[0]))
            and not _is_glued_left(text, at, _BORDERS)
            and not _is_glued_right(text, match.end(), _BORDERS)
        ):
            yield at, match.end(), "cn_id"


def cards(text: str, first: int, last: int) -> Iterator[Found]:
    """Find card numbers between two places of a text."""
    for start in _FOUR.finditer(text, first, last):
        at = start.start()
        match = _CARD.match(text, at)
        if not match:
            continue
        before = _before(text, at)
        labelled = _is_after(_CARD_LABEL, before)
        if _is_glued_left(text, at, "=_" if labelled else ""):
            continue
        if _is_glued_right(text, match.end()) and not _EXPIRY.match(text, match.end()):
            continue
        digits = re.sub(r"[ -]", "", match[0])
        if not is_card(digits) or _UNIT.match(text, match.end()):
            continue
        if not labelled:
            # a row of a table; a number of something else; one run of digits of a length that other numbers have
            if (
                re.search(r"(?<!\d)\d{4}[ -]$", before)
                or _IBAN_BEFORE.search(before)
                or re.match(r"[ -]\d{4}(?!\d)", text[match.end() : match.end() + 6])
            ):
                continue
            if _is_after(_OTHER_LABEL, before) or (len(digits) not in _USUAL_LENGTHS and len(match[0]) == len(digits)):
                continue
        yield at, match.end(), "card"


# --- phone numbers ------------------------------------------------------------------------------------------------

_INTERNATIONAL = _compile(r"\(?(?:\+ ?|00)(?:\(?[1-9]\d{0,3}\)?)(?:[ .\-/()]{0,3}\d){5,14}")
_MOBILE = _compile(r"(?:\(?(?:\+ ?|00)?86\)?[ -]{0,2})?1[3-9]\d[ -]?\d{4}[ -]?\d{4}")
_TWO_TO_34 = str(1 << 34)  # stands in many texts, and would be a mobile number
_AREA = r"0(?:10|2\d|[3-9]\d\d)"
_LANDLINE = _compile(
    rf"(?:\({_AREA}\)[ -]?|{_AREA}[ -]{{1,2}})[2-9]\d{{2,3}}[ -]?\d{{4}}(?:(?:转|轉|-| ?ext\.? ?)\d{{1,5}})?"
)
_SERVICE = _compile(r"[48]00[ -]\d{3,4}[ -]\d{3,4}")
_NORTH_AMERICAN = _compile(
    r"(?:\+?1[ .-]?)?(?:\([2-9]\d\d\)[ -]?|[2-9]\d\d([ ./-]))[2-9]\d\d[ .-]\d{4}"
    r"(?:,? ?(?:x|ext\.?|extension) ?\d{1,6})?"
)
_TRUNK = _compile(
    r"(?:\(0?[1-9]\d{0,3}\)[ -]?|0[1-9]\d{0,3}(?:[ ./-]| / )|8 ?\(\d{3,4}\) ?|8[ -](?=9\d\d[ -]))\d{2,8}"
    r"(?:[ .-]\d{2,8}){0,4}"
)
_AREA_IN_BRACKETS = ("BR", "MX")  # there an area code stands in brackets without a 0 before it
_NO_PHONE = _compile(r"(?:\d{5}|\d{3}-\d{2})-\d{4}(?!\d)")  # codes of the USA: ZIP+4, social security
_LONE = _compile(r"1[3-9]\d{9}(?!\d)")
_SIX_DIGITS = _compile(r"[(+]{0,2}\d(?:[ .\-/()]{0,3}\d){5}")  # the fewest, of a labelled number
_ROW_AFTER = _compile(r"(?:-| {1,3})(?:\d{1,6}|[0-9a-fA-F]{2})(?![\w-])")
_ROW_BEFORE = _compile(r"(?<!\w)(?:\d{1,6}|[0-9a-fA-F]{2}|<[0-9a-f]{2}>) {1,3}$")
_ANY = _compile(r"\(?\d(?:[ .\-/()]{0,2}\d){5,14}")
_DATE = _compile(
    r"\(?(?:\d{1,2}([./ -])\d{1,2}\1\d{4}|[12]\d{3}([./ -])\d{1,2}\2\d{1,2}|[12]\d{3}[ -]{1,3}[12]\d{3})(?!\d)"
)
_SEPARATORS = re.compile(r"[^0-9]+")


def supported_regions() -> Collection[str]:
    """Give the ISO 3166 codes of the countries whose numbers are known."""
    import phonenumbers  # here and below: every command reads PiiConfig, few look for numbers

    return phonenumbers.SUPPORTED_REGIONS


def _is_valid(number: str, region: str | None) -> bool:
    import phonenumbers

    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False


def _is_possible(number: str) -> bool:
    import phonenumbers

    try:
        return phonenumbers.is_possible_number(phonenumbers.parse(number, None))
    except phonenumbers.NumberParseException:
        return False


def _cuts(value: str) -> Iterator[str]:
    """Yield a number and what is left of it without its last groups, longest first."""
    ends = [match.end() for match in re.finditer(r"\d(?!\d)", value)]
    for end in reversed(ends):
        if sum(map(str.isdigit, value[:end])) >= 7:
            yield value[:end]


def _international(text: str, at: int) -> int:
    """Give the end of the number with a country code that begins here, or -1."""
    match = _INTERNATIONAL.match(text, at)
    if not match:
        return -1
    for value in _cuts(match[0]):
        if _is_glued_right(text, at + len(value)):
            continue
        number = re.sub(r"^\(?(?:\+ ?|00)", "+", value)
        if value.lstrip("(").count("(") > value.count(")") or value.count(")") > value.count("("):
            continue
        groups = len(_SEPARATORS.split(number)) - 1
        if _is_valid(number, None) or (
            groups >= 3 and value.lstrip("(")[0] == "+" and "." not in number[:6] and _is_possible(number)
        ):
            return at + len(value)
    return -1


def _is_regular(text: str, at: int, end: int, done: int) -> bool:
    """Say whether nothing before or after makes the number a row of a table, an amount or a part of something.

    done: the end of the number found before this one, whose digits are no row of a table.
    """
    if _is_glued_right(text, end) or _UNIT.match(text, end):
        return False
    value = text[at:end]
    if value.isdigit() and len(value) == 11:  # a list of mobile numbers, blanks between them
        return True
    before = at > done + 1 and at >= 2 and text[at - 1] in " -" and text[at - 2].isdigit()
    return not before and not re.match(r"[ -]\d{1,6}(?![\d-])", text[end : end + 9])


def _national(text: str, at: int, done: int, regions: tuple[str, ...]) -> int:
    """Give the end of the number without a country code that begins here, or -1."""
    if not _SIX_DIGITS.match(text, at):
        return -1
    before = _before(text, at)
    labelled = _is_after(_PHONE_LABEL, before)
    if labelled or not _is_after(_OTHER_LABEL, before):
        if "CN" in regions:
            for pattern in (_MOBILE, _LANDLINE, _SERVICE):
                match = pattern.match(text, at)
                if match and match[0] != _TWO_TO_34 and _is_regular(text, at, match.end(), done):
                    return match.end()
        match = _NORTH_AMERICAN.match(text, at)
        if match and "US" in regions and _is_regular(text, at, match.end(), done):
            only_blanks = match[1] == " " and not match[0].startswith("1")
            if not only_blanks or labelled or _is_valid(match[0], "US"):
                return match.end()
    if _DATE.match(text, at):
        return -1
    match = _TRUNK.match(text, at)
    if (
        match
        and not _IBAN_BEFORE.search(before)
        and not _NO_PHONE.match(text, at)
        and not _ROW_BEFORE.search(text, max(done + 1, at - 9), at)
    ):
        for value in _cuts(match[0]):
            end = at + len(value)
            if sum(map(str.isdigit, value)) < 9 or value.count("(") != value.count(")") or _ROW_AFTER.match(text, end):
                continue
            known = regions if value[0] != "(" or value[1] == "0" else [r for r in regions if r in _AREA_IN_BRACKETS]
            if _is_regular(text, at, end, done) and any(_is_valid(value, region) for region in known):
                return end
    if labelled and (match := _ANY.match(text, at)):
        for value in _cuts(match[0]):
            if value.count("(") == value.count(")") and not _is_glued_right(text, at + len(value)):
                return at + len(value)
    return -1


def phones(text: str, first: int, last: int, regions: tuple[str, ...]) -> Iterator[Found]:
    """Find phone numbers between two places of a text, with the sign and bracket before them."""
    done = 0
    for match in _ONE.finditer(text, first, last):
        begin = start = match.start()
        if start < done:
            continue
        in_row = start > done + 1 and text[start - 1] == " " and text[start - 2].isdigit()
        if in_row and not _LONE.match(text, start):
            continue
        if begin > done and text[begin - 1] == "+":
            begin -= 1
        elif begin > done + 1 and text.startswith("+ ", begin - 2):
            begin -= 2
        if begin > done and text[begin - 1] == "(":
            begin -= 1
        if _is_glued_left(text, begin) and not (
            text[begin - 1] in "=_" and _is_after(_PHONE_LABEL, _before(text, begin))
        ):
            continue
        end = -1
        if text.startswith(("+", "(+", "00"), begin):
            end = _international(text, begin)
        if end < 0:
            end = _national(text, begin, done, regions)
        if end < 0 and begin < start and text[begin] == "(":
            end, begin = _national(text, start, done, regions), start
        if end > 0:
            begin += text[begin] == "(" and text.count("(", begin, end) > text.count(")", begin, end)
            yield begin, end, "phone"
            done = end
