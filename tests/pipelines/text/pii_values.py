"""Values of the labelled set of personal data, each with a context: written by hand, and composed from formats.

Check digits are computed here, by other code than the detector's. Every secret is made up from random letters, so none
of them stands in this file.
"""

from __future__ import annotations

import base64
import random
import string
from collections.abc import Callable, Iterator

_ALNUM = string.ascii_letters + string.digits
_BASE64 = _ALNUM + "+/"


def luhn_digit(digits: str) -> str:
    """The last digit that makes a number pass Luhn's test (ISO/IEC 7812-1)."""
    total = sum(sum(divmod(int(digit) * (2 - i % 2), 10)) for i, digit in enumerate(reversed(digits)))
    return str(-total % 10)


def id_digit(digits: str) -> str:
    """The check character of 17 digits of a resident identity number (GB 11643-1999)."""
    return "10X98765432"[sum(int(digit) * (1 << 17 - i) for i, digit in enumerate(digits)) % 11]


def iban_digits(country: str, account: str) -> str:
    """The check digits of an IBAN (ISO 13616)."""
    return f"{98 - int(''.join(str(int(char, 36)) for char in account + country + '00')) % 97:02}"


# --- contexts: {} is the value ------------------------------------------------------------------------------------

PLAIN = (
    "{}", "The file lists {} as well.", "See {} for details.", "({})", "contact,{},2019", "- {}\n- and more",
    "It was {}, and nobody knew.", "“{}”", "他留下了{}这一条。", "资料：{}。", "（{}）", "名单上有{}、以及其他人。",
    "内容为{}，请核对",
)  # fmt: skip
EMAIL = (
    "Contact: {}", "Write to {}.", "Please e-mail {}, or call us.", "<{}>", "mailto:{}", "Jane Doe <{}> wrote:",
    "邮箱{}。", "邮箱：{}，欢迎来信", "请发邮件至{}联系我们", "电子邮件（{}）", "联系人张三{}转", "E-mail:{};",
    "[{}]", '"{}"',
    "来信请寄{}、或致电", "author = {{{}}}",
)  # fmt: skip
PHONE = (
    "Tel: {}", "Phone {}", "Call {} today.", "Please call us at {}.", "Fax: {}", "Mobile: {}, ask for Jane",
    "电话：{}", "电话:{}。", "联系电话{}，欢迎咨询", "手机：{}", "手机号{}", "传真：{}；", "请拨打{}联系我们",
    "热线电话：{}（工作日）",
    "联系方式：{}", "WhatsApp: {}", "T: {}", "Telephone: {} (office hours)",
)  # fmt: skip
CARD = (
    "Card number: {}", "Visa {}", "card no. {}", "pay with {} please", "信用卡号：{}", "卡号{}，有效期12/27",
    "银行卡：{}。",
    "请汇款至{}账户",
)  # fmt: skip
IDENTITY = (
    "身份证号：{}",
    "身份证号码{}，",
    "公民身份号码：{}。",
    "ID number {}",
    "证件号码为{}的居民",
    "被告人王某，身份证{}",
)
IBAN = ("IBAN: {}", "Account {} at the bank", "please transfer to {}.", "账户：{}。", "收款账号{}，", "IBAN {}")
ADDRESS = (
    "Client {} connected.", "Failed login from {}", "{} - - [12/May/2019:10:00:00 +0000]", "ping {}", "http://{}/index",
    "IP: {}", "IP地址：{}。", "来自{}的访问", "host {} port 22", "User {} edited the page.", "服务器{}，端口80",
    "connected to {}, retrying",
)  # fmt: skip
ADDRESS6 = tuple(context for context in ADDRESS if "http" not in context)


def _number(rng: random.Random, template: str) -> str:
    """Fill a template: # is a digit, * one from 2 to 9."""
    return "".join(
        rng.choice(string.digits) if char == "#" else rng.choice("23456789") if char == "*" else char
        for char in template
    )


def _letters(rng: random.Random, count: int, alphabet: str = _ALNUM) -> str:
    return "".join(rng.choices(alphabet, k=count))


def _wide(text: str) -> str:
    """Give the full-width form."""
    return "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)


# --- e-mail -------------------------------------------------------------------------------------------------------

EMAILS = (
    "jane.doe@gmail.com", "j@x.co", "info@university.ac.uk", "first.last+tag@sub.domain.org", "o'brien@mail.ie",
    "user_name@my-company.io", "UPPER.CASE@DOMAIN.COM", "13812345678@163.com", "123456789@qq.com",
    "zhang-san@sina.com.cn",
    "wang_wei@mail.tsinghua.edu.cn", "a.b.c.d@e.f.g.hk", "x@xn--fiqs8s.cn", "curator@louvre.museum",
    "me@photos.photography",
    "abc@example.com", "support@github.com", "hello@startup.ai", "r2d2@droid.dev", "no-reply@accounts.google.com",
    "webmaster@gov.cn", "lihua2008@126.com", "test.email-with-dash@example.co.jp", "postmaster@mail.ru",
    "d'artagnan@musketeers.fr", "1@numbers.net", "under__score@double.us", "x.y+z-w_v@q-r.s-t.de", "anna@müller.de",
)  # fmt: skip
_FIRST = (
    "li.ming",
    "jane",
    "john.smith",
    "wangxiaoming",
    "k_tanaka",
    "maria-jose",
    "sales",
    "ivan.petrov",
    "zs1988",
    "bob",
)
_HOSTS = ("gmail.com", "qq.com", "163.com", "outlook.com", "mail.pku.edu.cn", "yahoo.co.jp", "company.de",
    "foxmail.com",
          "uni-bonn.de", "nhs.uk", "state.gov", "sub.example.org")  # fmt: skip


def _emails(rng: random.Random) -> Iterator[tuple[str, str]]:
    for i, value in enumerate(EMAILS):
        yield value, EMAIL[i % len(EMAIL)]
        yield value, PLAIN[i % len(PLAIN)]
    for i in range(90):
        number = str(rng.randrange(1000)) if rng.random() < 0.5 else ""
        value = f"{rng.choice(_FIRST)}{number}@{rng.choice(_HOSTS)}"
        if i % 15 == 0:
            value = value.replace("@", "＠")
        yield value, (EMAIL + PLAIN)[i % (len(EMAIL) + len(PLAIN))]


# --- phone --------------------------------------------------------------------------------------------------------

INTERNATIONAL = (
    "+1 212-*##-####", "+1 (415) *##-####", "+1.617.*##.####", "+1202*######", "+44 20 7946 ####",
    "+44 (0)20 7946 ####",
    "+447911 12####", "+49 30 9018####", "+49 151 2345####", "+33 1 42 68 ## ##", "+33 6 12 ## ## ##",
    "+39 06 6982 ####",
    "+34 612 34# ###", "+81 3-3224-5###", "+81-90-1234-####", "+61 2 9374 4###", "+91 98765 4####", "+55 11 91234-####",
    "+7 (495) 123-##-##", "+82 2-312-3###", "+852 2345 ####", "+886 2 2345 ####", "+65 6123 4###", "+52 55 1234 ####",
    "+31 20 123 4###", "+41 44 668 1# ##", "+46 8 123 45# ##", "+27 21 123 4###", "+86 138 ####%####",
    "+86 10 6275 ####",
    "+86-10-6275####", "+86 (21) 6471 ####", "+8613*########", "+358 9 1234 5##", "+380 44 123 4###", "+20 2 2345 ####",
)  # fmt: skip
NORTH_AMERICAN = ("(212) *##-####", "415-*##-####", "617.*##.####", "(312)*##-####", "1-800-*##-####",
    "1 (202) *##-####",
                  "206-*##-#### ext. 12", "(555) 123-4567", "555-867-5309")  # fmt: skip
CHINESE_MOBILE = (
    "13#########", "15#-####-####", "18# #### ####", "17#########", "19#-########", "+86 13# #### ####",
    "+8615#########",
    "86-138-####-####", "(+86)139########", "+86-137-####-####", "0086 136 #### ####",
)  # fmt: skip
CHINESE_LANDLINE = (
    "010-6275####", "010-6275-####", "(010) 6275 ####", "（021）6471####", "021-6471####", "0755-2654####",
    "(0571)8765####",
    "0755-2654 ####", "400-810-####", "0571－8765####", "010-6275####-801", "010-6275####转8001", "800-820-####",
)  # fmt: skip
NATIONAL = (
    "020 7946 ####", "07911 12####", "0161 496 0###", "01 42 68 ## ##", "06.12.##.##.##", "030 9018####",
    "030/9018####",
    "089-1234####", "03-3224-5###", "090-1234-####", "02 9374 4###", "0412 345 ###", "8 (495) 123-##-##",
    "02-2345-####",
    "0912-345-###", "02-312-3###", "010-1234-5###", "06 6982 ####", "(11) 91234-####", "022-2345 ####",
)  # fmt: skip
# Only a label before them says what they are.
LABELLED = (
    "2345 6###", "6123 4###", "212*######", "*##-####", "98765 4####", "612 34# ###", "44 668 1# ##", "9123####",
    "62751###", "6275-####", "555-0123",
)  # fmt: skip


def _phones(rng: random.Random) -> Iterator[tuple[str, str]]:
    both = (*PHONE, *PLAIN, "李工{}", "王同学{}（微信同号）")
    for template, times in (
        *((template, 2) for template in INTERNATIONAL),
        *((template, 5) for template in NORTH_AMERICAN),
        *((template, 7) for template in CHINESE_MOBILE),
        *((template, 5) for template in CHINESE_LANDLINE),
        *((template, 2) for template in NATIONAL),
    ):
        for _ in range(times):
            value = _number(rng, template.replace("%", " "))
            if template in CHINESE_MOBILE and rng.random() < 0.15:
                value = _wide(value)
            yield value, rng.choice(both)
    for template in LABELLED:
        for _ in range(3):
            yield _number(rng, template), rng.choice(PHONE)


# --- addresses ----------------------------------------------------------------------------------------------------

IPV4 = (
    "8.26.56.26",
    "93.184.216.34",
    "203.0.78.12",
    "114.247.50.2",
    "61.135.169.121",
    "1.180.13.77",
    "185.199.108.153",
)
IPV6 = (
    "2001:470:1f0b:a1::2", "2a00:1450:4001:81b::200e", "2408:8207:1850:4c30:9d2e:7f11:3c4a:5b6d",
    "2606:2800:220:1::248",
    "2A02:8109:B6C0:1D00:A5E1:9B3F:2C7D:11E4", "240e:3b7:3272:d8d0::1001", "2400:da00::dbf:0:100",
)  # fmt: skip


def _address4(rng: random.Random) -> str:
    first = rng.choice([n for n in range(11, 224) if n not in (100, 127, 169, 172, 192, 198, 203)])
    return ".".join(map(str, (first, rng.randrange(40, 256), rng.randrange(256), rng.randrange(1, 255))))


def _address6(rng: random.Random) -> str:
    first = rng.choice(("2001:4", "2a02:", "2408:8", "2600:1", "2804:"))
    middle, joint = rng.choice(((3, "::"), (6, ":")))
    parts = [f"{rng.randrange(1, 0xFFF):x}" for _ in range(middle)]
    return f"{first}{':'.join(parts)}{joint}{rng.randrange(1, 0xFFFF):x}"


def _addresses4(rng: random.Random) -> Iterator[tuple[str, str]]:
    for i, value in enumerate(IPV4):
        yield value, ADDRESS[i]
    for i in range(60):
        yield _address4(rng), (ADDRESS + PLAIN)[i % (len(ADDRESS) + len(PLAIN))]


def _addresses6(rng: random.Random) -> Iterator[tuple[str, str]]:
    for i, value in enumerate(IPV6):
        yield value, ADDRESS6[i]
    for i in range(50):
        yield _address6(rng), (ADDRESS6 + PLAIN)[i % (len(ADDRESS6) + len(PLAIN))]


# --- cards, identities, accounts ----------------------------------------------------------------------------------

# prefix, length, groups
CARDS = (
    ("4", 16, (4, 4, 4, 4)), ("51", 16, (4, 4, 4, 4)), ("2221", 16, (4, 4, 4, 4)), ("34", 15, (4, 6, 5)), ("37", 15,
    (4, 6, 5)),
    ("6011", 16, (4, 4, 4, 4)), ("65", 16, (4, 4, 4, 4)), ("3530", 16, (4, 4, 4, 4)), ("36", 14, (4, 6, 4)),
    ("622202", 19, (4, 4, 4, 4, 3)), ("622848", 19, (6, 13)), ("6225", 16, (4, 4, 4, 4)), ("2200", 16, (4, 4, 4, 4)),
)  # fmt: skip


def card(rng: random.Random, prefix: str, length: int) -> str:
    """Make a card number."""
    digits = prefix + _letters(rng, length - len(prefix) - 1, string.digits)
    return digits + luhn_digit(digits)


def _grouped(value: str, groups: tuple[int, ...], separator: str) -> str:
    parts, at = [], 0
    for group in groups:
        parts.append(value[at : at + group])
        at += group
    return separator.join(parts)


def _cards(rng: random.Random) -> Iterator[tuple[str, str]]:
    for prefix, length, groups in CARDS:
        for separator in ("", " ", "-", " ", "", ""):
            value = _grouped(card(rng, prefix, length), groups, separator)
            # 14 and 19 digits in one run are too many other things, unless something says so
            weak = not separator and length == 14
            yield value, rng.choice(CARD if weak else CARD + PLAIN)
    yield "４５３９５７８７６３６２１４８６", "卡号：{}。"


_REGIONS = ("110105", "310104", "440305", "330106", "510107", "420106", "610113", "370202", "230103", "654101",
    "820000",
            "320583", "140107", "532901")  # fmt: skip


def identity(rng: random.Random) -> str:
    """Make a resident identity number."""
    digits = rng.choice(_REGIONS) + f"{rng.randrange(1930, 2015)}{rng.randrange(1, 13):02}{rng.randrange(1, 29):02}"
    digits += f"{rng.randrange(1000):03}"
    return digits + id_digit(digits)


def _identities(rng: random.Random) -> Iterator[tuple[str, str]]:
    yield "11010519491231002X", "身份证号：{}"  # the example of GB 11643
    yield "440524188001010014", "公民身份号码：{}。"
    for i in range(80):
        value = identity(rng)
        if i % 9 == 0:
            value = value.lower()
        if i % 10 == 1:
            value = _grouped(value, (6, 8, 4), " ")
        if i % 20 == 7:
            value = _wide(value)
        yield value, (IDENTITY + PLAIN)[i % (len(IDENTITY) + len(PLAIN))]


# examples of the SWIFT registry
IBANS = (
    "GB82 WEST 1234 5698 7654 32", "DE89370400440532013000", "FR1420041010050500013M02606", "NL91ABNA0417164300",
    "CH93 0076 2011 6238 5295 7", "ES9121000418450200051332", "IT60X0542811101000000123456", "BE68 5390 0754 7034",
    "NO9386011117947", "SA0380000000608010167519", "MT84MALT011000012345MTLCAST001S", "PL61109010140000071219812874",
    "AE070331234567890123456", "BR1800360305000010009795493C1", "TR330006100519786457841326",
    "SE4550000000058398257466",
)  # fmt: skip


def iban(rng: random.Random, country: str, template: str) -> str:
    """Make an IBAN: in the template, n is a digit and a a letter."""
    account = "".join(rng.choice(string.digits if char == "n" else string.ascii_uppercase) for char in template)
    return country + iban_digits(country, account) + account


_IBAN_TEMPLATES = (("DE", "n" * 18), ("GB", "aaaa" + "n" * 14), ("FR", "n" * 23), ("NL", "aaaa" + "n" * 10), ("AT",
    "n" * 16),
                   ("PT", "n" * 21), ("DK", "n" * 14), ("IE", "aaaa" + "n" * 14), ("PL", "n" * 24))  # fmt: skip


def _ibans(rng: random.Random) -> Iterator[tuple[str, str]]:
    for i, value in enumerate(IBANS):
        yield value, IBAN[i % len(IBAN)]
    for i in range(54):
        value = iban(rng, *_IBAN_TEMPLATES[i % len(_IBAN_TEMPLATES)])
        if i % 2:
            value = " ".join(value[k : k + 4] for k in range(0, len(value), 4))
        yield value, (IBAN + PLAIN)[i % (len(IBAN) + len(PLAIN))]


# --- secrets ------------------------------------------------------------------------------------------------------


def _jwt(rng: random.Random) -> str:
    def part(text: str) -> str:
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    body = f'{{"sub":"{rng.randrange(10**9)}","name":"Jane","iat":{rng.randrange(10**9, 2 * 10**9)}}}'
    return ".".join((part('{"alg":"HS256","typ":"JWT"}'), part(body), _letters(rng, 43, _ALNUM + "-_")))


def _pem(rng: random.Random, name: str) -> str:
    lines = [_letters(rng, 64, _BASE64) for _ in range(rng.randrange(3, 14))] + [_letters(rng, 42, _BASE64) + "=="]
    return f"-----BEGIN {name}-----\n" + "\n".join(lines) + f"\n-----END {name}-----"


def tokens(rng: random.Random) -> list[str]:
    """Make one token of each kind that says itself what it is."""
    hexadecimal = string.digits + "abcdef"
    return [
        rng.choice(("AKIA", "ASIA")) + _letters(rng, 16, string.ascii_uppercase + "234567"),
        rng.choice(("ghp_", "gho_", "ghu_", "ghs_", "ghr_")) + _letters(rng, 36),
        "github_pat_" + _letters(rng, 22) + "_" + _letters(rng, 59),
        "glpat-" + _letters(rng, 20, _ALNUM + "-_"),
        f"xoxb-{rng.randrange(10**11, 10**12)}-{rng.randrange(10**11, 10**12)}-" + _letters(rng, 24),
        f"xoxp-{rng.randrange(10**10, 10**11)}-{rng.randrange(10**10, 10**11)}-{rng.randrange(10**11, 10**12)}-"
        + _letters(rng, 32, hexadecimal),
        f"https://hooks.slack.com/services/T{_letters(rng, 8, string.ascii_uppercase + string.digits)}"
        f"/B{_letters(rng, 10, string.ascii_uppercase + string.digits)}/{_letters(rng, 24)}",
        rng.choice(("sk_live_", "rk_live_", "sk_test_")) + _letters(rng, 24),
        "AIza" + _letters(rng, 35, _ALNUM + "-_"),
        "GOCSPX-" + _letters(rng, 28, _ALNUM + "-_"),
        "sk-" + _letters(rng, 20) + "T3Blbk" + "FJ" + _letters(rng, 20),
        "sk-proj-" + _letters(rng, 74, _ALNUM + "-_") + "T3Blbk" + "FJ" + _letters(rng, 74, _ALNUM + "-_"),
        "sk-ant-api03-" + _letters(rng, 93, _ALNUM + "-_") + "AA",
        "hf_" + _letters(rng, 34, string.ascii_letters),
        "npm_" + _letters(rng, 36),
        "SG." + _letters(rng, 22, _ALNUM + "-_") + "." + _letters(rng, 43, _ALNUM + "-_"),
        "LTAI" + _letters(rng, 20),
        _jwt(rng),
    ]  # fmt: skip


TOKEN = ("{}", "token: {}", "export TOKEN={}", 'key = "{}"', "curl -H 'Authorization: Bearer {}'", "我的密钥是{}。",
    "密钥：{}，请勿外传",
         "Do not commit {} to the repository.", "{}\n", "('{}')")  # fmt: skip
PASSWORDS = (
    'password = "{}"', "PASSWORD={}", "DB_PASSWORD={}\nDB_HOST=localhost", '"password": "{}",', "password: {}",
    "pwd={};",
    "Server=db;Database=app;User Id=sa;Password={};", "api_key: {}", 'apiKey: "{}",', "api-key={}",
    "client_secret: '{}'",
    "secret_key = '{}'", "access_token={}&", "postgres://app:{}@db.internal:5432/app",
    "https://deploy:{}@git.internal.net/x",
    "密码：{}。", "密码:{}", "登录密码是：{}，", "aws_secret_access_key = {}", "AuthToken: {}",
    "--password={} --user=root",
    'passwd: "{}"',
)  # fmt: skip
_SECRET_VALUES = ("hex", "alnum", "mixed")


def _secrets(rng: random.Random) -> Iterator[tuple[str, str]]:
    for i in range(5):
        for j, value in enumerate(tokens(rng)):
            yield value, TOKEN[(i + 3 * j) % len(TOKEN)]
    for context in PASSWORDS:
        for kind in _SECRET_VALUES:
            if kind == "hex":
                value = _letters(rng, 32, string.digits + "abcdef")
            elif kind == "alnum":
                value = _letters(rng, rng.choice((16, 20, 40)))
            else:
                value = _letters(rng, 5) + rng.choice("!#%-_") + _letters(rng, 4, string.ascii_uppercase)
                value += str(rng.randrange(10, 99))
            yield (_letters(rng, 40, _BASE64) if "aws" in context else value), context
    for name in ("RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY", "OPENSSH PRIVATE KEY", "ENCRYPTED PRIVATE KEY"):
        for context in ("{}", "key.pem:\n{}\n", "私钥如下：\n{}\n请妥善保管"):
            yield _pem(rng, name), context


PARTS: dict[str, Callable[[random.Random], Iterator[tuple[str, str]]]] = {
    "email": _emails,
    "phone": _phones,
    "ipv4": _addresses4,
    "ipv6": _addresses6,
    "card": _cards,
    "cn_id": _identities,
    "iban": _ibans,
    "secret": _secrets,
}
