"""The labelled set of personal data: hard negatives, which look like it and are not.

Composed from formats,
    seeded values and contexts in English and Chinese; the same on every machine. Numbers with a wrong
check digit come from the generators of `pii_values`, one digit off.
"""

from __future__ import annotations

import random
import string
import uuid
from collections.abc import Callable, Iterator

from pii_cases import SEED, Case
from pii_values import card, iban, identity

ENGLISH = (
    "{}",
    "See {} for details.",
    "It was {}, as expected.",
    "({})",
    "The list says {}; nothing else.",
    "- {}\n- more",
)
CHINESE = ("资料：{}。", "（{}）", "内容为{}，请核对", "他留下了{}这一条。", "共{}", "详见{}、附录二")
BOTH = ENGLISH + CHINESE
HEX = string.digits + "abcdef"

# What must not be found whatever stands around it.
FIXED = (
    # at signs that are no e-mail
    "@janedoe", "user@localhost", "foo@bar", "icon@2x.png", "logo@3x.jpg", "react@18.2.0", "npm i lodash@4.17.21",
    "@types/node@20.1.0", "git clone git@github.com:org/repo.git", "ssh://git@github.com/org/repo",
    "@alice@mastodon.social",
    "https://medium.com/@user/a-post-1234567890", "@media screen", "@Override public", "12 apples @ $1.20",
    "rate @ 3.5%",
    "meet @ home.now", "x@y.z", "a@b", "flickr.com/photos/12345678@N02/", "@app.route('/x')", "foo@.com",
    "@example.com",
    "deploy@{host}", "me@", "root@host:~#", "scp f.txt bob@server.example.com:/srv/f.txt", "12@34.56", "微博@人民日报",
    "style@main.css", "hello@world.html", "pkg@latest", "actions/checkout@v4.1.7", "#channel:matrix.org",
    "@bob:matrix.org",
    "https://www.google.com/maps/@39.9042,116.4074,15z", "P@ssw0rd is weak", "3@5.7 m/s", "sha@256.sum",
    # versions, sections, identifiers with dots
    "v1.2.3.4", "version 11.2.202.228", "Version: 10.0.19.41", "Chrome/88.0.4324.150", "Firefox 3.6.13.0", "1.2.3.4",
    "Section 4.3.2.1", "§ 12.3.4.5", "OID 1.3.6.1.4.1.311", "1.3.6.1.2.1.25.3", "rev. 2.10.44.101",
    "release 7.60.101.5",
    "libfoo-11.22.133.44.tar.gz", "setup_11.22.133.44.exe", "Flash Player 11.5.502.110", "版本 8.45.120.6",
    "版本号：8.45.120.6",
    "V8.45.120.6版", "第3.2.1.4节", "Java 1.8.0.144", "firmware 12.34.56.78", "驱动程序 31.0.15.34",
    "Build 10.0.14.393",
    "1.2.3.4 Overview of the method", "Table 3.1.2.4", "256.300.1.2", "10.20.30.400", "1.2.3.4.5", "12.34.56",
    "01.02.03.04",
    "NuGet package 6.12.4.101", "ICD 12.14.15.16.17", "assembly version=4.20.69.80, culture=neutral",
    # addresses of nobody: loopback, private, documentation, and services known to all
    "127.0.0.1", "0.0.0.0", "255.255.255.0", "192.168.1.1", "10.0.0.138", "172.16.254.1", "169.254.1.1", "192.0.2.44",
    "198.51.100.7", "203.0.113.99", "224.0.0.251", "8.8.8.8", "1.1.1.1", "114.114.114.114", "9.9.9.9", "8.8.4.4",
    "255.255.255.255", "100.64.3.2", "::1", "::", "fe80::1ff:fe23:4567:890a", "fd12:3456:789a:1::1", "2001:db8::1",
    "2001:db8:85a3::8a2e:370:7334", "ff02::1", "2001:4860:4860::8888", "2606:4700:4700::1111",
    # colons that are no IPv6
    "12:30:45", "00:1B:44:11:3A:B7", "00-1B-44-11-3A-B7", "std::vector", "Foo::Bar::baz", "A::B", "dead::beef",
    "a::b::c",
    "1:2:3:4:5:6:7", "10:20:30:40:50:60", "John 3:16", "Psalm 119:105-112", "ratio 1:2:4:8", "12:30:45:10", "4:3::16:9",
    "ed2::x", "std::string::npos", "Ab::Cd", "face::cafe", "2024::2025", "00:1b:44:11:3a:b7:aa:bb", "1:1:1:1:1:1:1:1:1",
    # times, scores, math, law
    "1939–1945", "2008-2012", "09:00-17:30", "3-2", "101-99", "12-4-1", "2-6, 6-4, 7-6 (7-3)", "410 U.S. 113",
    "347 U.S. 483, 495",
    "pp. 1234-1256", "3.14159265358979323846", "2^64 = 18446744073709551616", "1,234,567,890", "12 345 678 901",
    "6.02214076e23",
    "1 000 000 000", "99.999%", "US 5,123,456", "CN101234567A", "EP 1 234 567 B1", "0.1234567890123", "1/2/3/4/5",
    "-273.15",
    "1+1=2", "1234567890", "0123456789", "1-2-3-4-5-6-7-8-9-10", "111-222-333", "000-00-0000", "2019-2020-1学期",
    "UTC+08:00",
    "+1,234,567", "+12.5%", "+40.7128, -74.0060", "+100000000 people", "x = +12345678.25", "10000000000000000000000",
    "第十三届全国人民代表大会", "一九四九年十月一日", "一百二十三万四千五百六十七", "1.3亿", "2000多万人",
    "人口13,812,345,678", "GB/T 7714-2015",
    "京ICP备12345678号-1", "京公网安备11010502030143号", "(2019)京0105民初12345号", "〔2019〕12号", "邮编100084",
    "车牌京A12345",
    "12345市民热线", "拨打110或119", "95588", "国发〔2014〕21号", "证监许可[2010]1234号", "GB 11643-1999",
    "沪ICP备05012345号",
    "ISO 8601:2004", "RFC 2822", "HTTP/1.1 200", "E=mc2", "CAS 7732-18-5", "EC 1.1.1.1", "PMID 12345678",
    "arXiv:1706.03762",
    "doi:10.1038/nature12373", "https://doi.org/10.1109/5.771073", "10.1000/182", "ORCID 0000-0002-1825-0097",
    "bibcode 1998ApJ...500..525S",
    "NGC 4414", "RA 12h 26m 27.1s", "40°26′46″N 79°58′56″W", "40.446195, -79.948862", "39.904202,116.407394",
    "S/N 12345-67890",
    "ZIP 90210-1234", "SKU 123-456-789", "1200 1300 1400 1500", "2001 2002 2003 2004", "1 2 3 4 5 6 7 8 9 10 11 12",
    "160 170 180 190 200 210", "0 12 24 36 48 60 72 84", "020304 050607", "0-0-0", "00000000", "11111111111",
    "0000-00-00 00:00:00",
    # not a secret
    "password: required", "password = getpass.getpass()", 'password = os.environ["DB_PASSWORD"]', "password=$PASSWORD",
    "password: ${DB_PASSWORD}", "api_key=YOUR_API_KEY", "api_key = <your-api-key>",
    "token: ${{ secrets.GITHUB_TOKEN }}",
    "password: ********", "secret: xxxxxxxxxxxx", "Password: string", "token = tokenizer.next_token()",
    "password = None",
    "The password: it must be 12 characters long.", "密码：请输入密码", "密码：不少于8位", "密码: ******",
    "pwd=/home/user/project",
    "api_key: your_api_key_here", "password='changeme'", "secret: internationalization", "token: authentication_token",
    "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOC\n-----END PUBLIC KEY-----", "sk-learn", "sk-SK",
    "mask-image: none",
    "-----BEGIN CERTIFICATE-----\nMIIDXTCCAkWgAwIBAgIJAJC1HiIAZAiI\n-----END CERTIFICATE-----",
    "-----BEGIN PRIVATE KEY-----",
    "eyJhbGciOi", "AKIA", "AKIAKIAKIA", "AIzawa", "npm_config_registry", "npm_package_config_value_that_is_long",
    "hf_hub_download",
    "token := lexer.Next()", "self.token = token", "secret = client.get_secret('name')", "access_token={access_token}",
    "password=%s", "passwordHash", "KEY=value", "key: value", "the secret: love", "Secret: The Story of a Marriage",
    "令牌：无",
    "TheQuickBrownFoxJumpsOverTheLazyDog2", "getElementsByTagNameNS", "CONFIG_DEBUG_INFO_BTF_MODULES", "sk_live_",
    "ghp_",
    "SG.something.else", "glpat-", "xoxb-", "private_key_path: /etc/ssl/private/server.key", "tokens: 1234567890",
    "max_tokens=4096",
    "token_count: 1024000", "password_min_length: 12", "kubectl get secret db-user-pass",
    "Authorization: Bearer <token>",
    "Authorization: Bearer $TOKEN", "passphrase: (empty for no passphrase)", "PASSWORD(8) System Manual", "pass: 12",
    "api_key: string",
    "密码：password", "http://user:password@example.com/", "https://example.com:8080/a@b",
    "ftp://anonymous:guest@ftp.example.com/",
)  # fmt: skip


def _digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choices(string.digits, k=count))


def _date(rng: random.Random) -> str:
    y, m, d = rng.randrange(1000, 2030), rng.randrange(1, 13), rng.randrange(1, 29)
    return rng.choice(
        (f"{y}-{m:02}-{d:02}", f"{d:02}.{m:02}.{y}", f"{m:02}/{d:02}/{y}", f"{y}{m:02}{d:02}", f"{y}年{m}月{d}日",
        f"{y}.{m:02}.{d:02}",
         f"{d:02}-{m:02}-{y}", f"{y}/{m:02}/{d:02}", f"{y}-{m:02}-{d:02} {d % 24:02}:{m * 4:02}:{d:02}",
         f"{y}{m:02}{d:02}T{d % 24:02}3015Z")
    )  # fmt: skip


def _range(rng: random.Random) -> str:
    y = rng.randrange(1000, 2020)
    a, b = f"{rng.randrange(24):02}:{rng.randrange(60):02}", f"{rng.randrange(24):02}:{rng.randrange(60):02}"
    z = y + rng.randrange(1, 60)
    return rng.choice(
        (f"{y}–{z}", f"{y}-{z}", f"{y}年至{z}年", f"{y}—{z}", f"{a}-{b}", f"{a}～{b}", f"{y}-{z % 100:02}",
        f"{y}/{z}", f"{y} - {z}",
         f"pp. {y}–{z}", f"{y}－{z}年", f"{y}-05-12–{z}-06-01")
    )  # fmt: skip


def _isbn13(rng: random.Random) -> str:
    digits = rng.choice(("978", "979")) + _digits(rng, 9)
    digits += str(-sum(int(d) * (3 if i % 2 else 1) for i, d in enumerate(digits)) % 10)
    group = rng.choice((1, 2, 3))
    cut = f"{digits[:3]}-{digits[3:4]}-{digits[4 : 4 + group + 2]}-{digits[6 + group : 12]}-{digits[12]}"
    return rng.choice((cut, cut.replace("-", " "), digits, f"ISBN {cut}", f"ISBN：{cut}"))


def _isbn10(rng: random.Random) -> str:
    digits = _digits(rng, 9)
    check = sum((10 - i) * int(d) for i, d in enumerate(digits))
    digits += "0123456789X"[-check % 11]
    cut = f"{digits[0]}-{digits[1:4]}-{digits[4:9]}-{digits[9]}"
    return rng.choice((cut, f"ISBN {cut}", f"ISBN {digits}", f"ISBN-10: {digits}"))


def _issn(rng: random.Random) -> str:
    digits = _digits(rng, 7)
    return f"ISSN {digits[:4]}-{digits[4:]}{'0123456789X'[-sum((8 - i) * int(d) for i, d in enumerate(digits)) % 11]}"


def _hash(rng: random.Random) -> str:
    value = "".join(rng.choices(HEX, k=rng.choice((7, 32, 40, 56, 64, 128))))
    return rng.choice((value, f"commit {value}", f"sha256:{value}", f"md5 {value}", value.upper(), f"0x{value[:16]}"))


def _uuid(rng: random.Random) -> str:
    value = str(uuid.UUID(int=rng.getrandbits(128), version=4))
    return rng.choice((value, value.upper(), f"urn:uuid:{value}", f"{{{value}}}"))


def _version(rng: random.Random) -> str:
    parts = [str(rng.randrange(256)) for _ in range(4)]
    word = rng.choice(
        (
            "version ",
            "v",
            "Version: ",
            "ver. ",
            "release ",
            "Build ",
            "版本",
            "版本号：",
            "firmware ",
            "Chrome/",
            "SDK ",
        )
    )
    return word + ".".join(parts)


def _order(rng: random.Random) -> str:
    value = rng.choice("123456789") + _digits(rng, rng.choice((7, 9, 10, 11, 12, 14, 15, 16, 17, 19, 21)))
    word = rng.choice(("Order no. ", "order #", "订单号：", "订单编号", "Tracking number: ", "快递单号", "Invoice ",
        "流水号：", "Ref. ",
                       "合同编号：", "Serial no. ", "ID: ", "工号", "学号：", "QQ：", "发票号码"))  # fmt: skip
    return word + value


def _long(rng: random.Random) -> str:
    return rng.choice((
        str(rng.randrange(10**9, 2 * 10**9)), str(rng.randrange(10**12, 2 * 10**12)), _digits(rng, 20),
            _digits(rng, 24),
        f"{rng.random():.16f}", f"{rng.uniform(-180, 180):.8f}", f"${rng.randrange(10**9):,}",
        f"{rng.randrange(10**8)}元",
        f"{rng.randrange(10**6, 10**8)}人", f"id={_digits(rng, 9)}", f"n = {_digits(rng, 8)}", f"0{_digits(rng, 6)}",
    ))  # fmt: skip


def _coordinates(rng: random.Random) -> str:
    a, b = rng.uniform(-90, 90), rng.uniform(-180, 180)
    return rng.choice((
        f"{a:.4f}, {b:.4f}", f"{a:.6f},{b:.6f}", f"{abs(a):.0f}°{rng.randrange(60)}′{rng.randrange(60)}″N",
        f"geo:{a:.5f},{b:.5f}",
        f"北纬{abs(a):.4f}度",
        f"{abs(a):.0f} {rng.randrange(60):02} {rng.randrange(60):02} N {abs(b):.0f} {rng.randrange(60):02} 10 E",
    ))  # fmt: skip


def _table(rng: random.Random) -> str:
    width = rng.choice((1, 2, 3, 4, 5))
    joint = rng.choice((" ", "  ", "\t", ", ", " | ", "、"))
    return joint.join(str(rng.randrange(10 ** (width - 1), 10**width)) for _ in range(rng.randrange(4, 12)))


def _score(rng: random.Random) -> str:
    a, b, c = (rng.randrange(1, 160) for _ in range(3))
    return rng.choice(
        (f"{a}-{b}", f"{a}–{b}", f"{a}:{b}", f"{a}比{b}", f"{a}-{b}-{c}", f"won {a}-{b}, {b}-{c}", f"{a}/{b}/{c}")
    )


def _doi(rng: random.Random) -> str:
    return rng.choice((
        f"doi:10.{rng.randrange(1000, 9999)}/{_digits(rng, 5)}.{_digits(rng, 4)}.{_digits(rng, 6)}",
        f"PMC{_digits(rng, 7)}",
        f"https://doi.org/10.1111/j.{_digits(rng, 4)}-{_digits(rng, 4)}.{rng.randrange(1990, 2020)}.{_digits(rng, 5)}",
        f"https://example.com/{_digits(rng, 11)}.html",
        f"http://news.cn/{rng.randrange(2000, 2020)}-05/12/c_{_digits(rng, 10)}.htm",
        f"/p/1{_digits(rng, 10)}", f"?id=13{_digits(rng, 9)}&x=1",
        f"arXiv:{rng.randrange(1000, 2000)}.{_digits(rng, 5)}",
    ))  # fmt: skip


def _mac(rng: random.Random) -> str:
    parts = [f"{rng.randrange(256):02x}" for _ in range(6)]
    return rng.choice(
        (":".join(parts), "-".join(parts).upper(), ".".join("".join(parts[i : i + 2]) for i in (0, 2, 4)))
    )


def _reserved(rng: random.Random) -> str:
    a, b = rng.randrange(256), rng.randrange(1, 255)
    return rng.choice((f"192.168.{a}.{b}", f"10.{a}.{b}.1", f"172.20.{a}.{b}", f"127.0.{a}.{b}", f"203.0.113.{a}",
        f"fd00:{a:x}::{b:x}",
                       f"2001:db8:{a:x}::{b:x}", f"fe80::{a:x}:{b:x}", f"239.{a}.{b}.1"))  # fmt: skip


def _wrong(value: str, rng: random.Random) -> str:
    """Change the last digit."""
    at = max(i for i, char in enumerate(value) if char.isdigit())
    return value[:at] + rng.choice([digit for digit in string.digits if digit != value[at]]) + value[at + 1 :]


def _wrong_card(rng: random.Random) -> str:
    value = _wrong(card(rng, rng.choice(("4", "51", "6011", "6225", "3530")), 16), rng)
    return rng.choice((value, " ".join(value[i : i + 4] for i in (0, 4, 8, 12))))


def _wrong_identity(rng: random.Random) -> str:
    value = identity(rng)
    month = value[:10] + f"{rng.randrange(13, 20)}" + value[12:]
    region = rng.choice(("00", "09", "27", "99", "74")) + value[2:]
    return rng.choice((value[:17] + ("1" if value[17] != "1" else "2"), month, region))


def _wrong_iban(rng: random.Random) -> str:
    value = iban(rng, *rng.choice((("DE", "n" * 18), ("GB", "aaaa" + "n" * 14), ("FR", "n" * 23))))
    wrong = _wrong(value, rng)
    return rng.choice(
        (wrong, " ".join(wrong[i : i + 4] for i in range(0, len(wrong), 4)), value[:-3], "XX" + value[2:])
    )


_GENERATORS: tuple[tuple[Callable[[random.Random], str], int], ...] = (
    (_date, 160), (_range, 140), (_isbn13, 120), (_isbn10, 80), (_issn, 60), (_hash, 100), (_uuid, 80),
    (_version, 140), (_order, 160),
    (_long, 140), (_coordinates, 100), (_table, 120), (_score, 80), (_doi, 140), (_mac, 80), (_reserved, 100),
    (_wrong_card, 100),
    (_wrong_identity, 100), (_wrong_iban, 80),
)  # fmt: skip


def _all(seed: int) -> Iterator[tuple[str, str]]:
    for i, text in enumerate(FIXED):
        yield "fixed", text
        yield "fixed", (ENGLISH if text.isascii() and i % 3 else CHINESE)[i % 6].format(text)
    for generator, count in _GENERATORS:
        rng = random.Random(f"{seed}/{generator.__name__}")
        for i in range(count):
            yield generator.__name__.lstrip("_"), BOTH[i % len(BOTH)].replace("{}", generator(rng))


def negatives(seed: int = SEED) -> list[Case]:
    """List the texts in which nothing is to be found, at least 2,000; another seed gives other values."""
    return [Case(text, (), label) for label, text in _all(seed)]
