"""Personal data: IP addresses, apart from version numbers and from addresses that belong to no one.

Works on one window at a time, folded to ASCII (`pii_numbers.fold`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from pipelines.text.pii_numbers import Found, label

_QUAD = re.compile(r"(?<![A-Za-z0-9._+$])(?:[0-9]{1,3}\.){3}[0-9]{1,3}")
_LABEL_REACH = 32
_VERSION_BEFORE = label(
    r"\w*versions? v ver release rev revision build section sec chapter table figure fig oid firmware kernel driver "
    r"sdk jdk jre java player chrome firefox opera safari edge reader acrobat package assembly update patch nuget "
    r"upgraded?\sto plugin ec icd",
    "§ 版 第 章 节 固件 驱动 补丁 升级 更新",
    "本 本号 程序 到 至",
    gap=12,
)
_VERSE_BEFORE = re.compile(r"(?<![0-9.])[0-9]{1,3}:\Z")  # John 1:26.28.48.51
_VERSION_AFTER = re.compile(r" ?(?:版|节|節|章|条|條)")
_ADDRESS_BEFORE = label(
    "ips? ipv4 addr address(?:es)? hosts? server ping from client gateway dns proxy node peer user to at",
    ":// 地址 服务器 主机 来自 网关 代理",
    "is 是 为",
)

# IANA IPv4 and IPv6 Special-Purpose Address Registries, and multicast: these belong to no one
_SPECIAL4 = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
    )
)  # fmt: skip
_SPECIAL6 = tuple(
    ipaddress.ip_network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16")
)
# IANA IPv6 Global Unicast Address Assignments
_ASSIGNED6 = tuple(
    ipaddress.ip_network(network)
    for network in ("2001::/16", "2003::/18", "2400::/12", "2410::/12", "2600::/12", "2610::/23", "2620::/23",
    "2630::/12", "2800::/12",
                    "2a00::/12", "2a10::/12", "2c00::/12")
)  # fmt: skip
# Open resolvers, which stand in texts as themselves: of Google, Cloudflare, Quad9, OpenDNS, Level 3, 114DNS, AliDNS,
# DNSPod, Baidu
_RESOLVERS = frozenset(
    map(
        ipaddress.ip_address,
        (
            "8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "149.112.112.112", "208.67.222.222",
            "208.67.220.220", "4.2.2.1",
            "4.2.2.2", "114.114.114.114", "114.114.115.115", "223.5.5.5", "223.6.6.6", "119.29.29.29", "180.76.76.76",
            "2001:4860:4860::8888", "2001:4860:4860::8844", "2606:4700:4700::1111", "2606:4700:4700::1001",
            "2620:fe::fe", "2620:fe::9",
            "2400:3200::1", "2402:4e00::",
        ),
    )
)  # fmt: skip


def _is_global(address: Any) -> bool:
    if address.version == 4:
        return not any(address in network for network in _SPECIAL4)
    return any(address in network for network in _ASSIGNED6) and not any(address in network for network in _SPECIAL6)


def is_in_scope(value: str, scope: str) -> bool:
    """Say whether an address is one that the scope asks for; not an address: no."""
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    if scope == "all":
        return True
    if scope == "private":
        return not _is_global(address)
    return _is_global(address) and address not in _RESOLVERS


def _is_version(quad: str) -> bool:
    """Say whether four numbers are so small that they are rather a version, a section or an object identifier.

    Of addresses in use fewer than 1 in 600 are so small; of version numbers most are.
    """
    first, second, third, fourth = map(int, quad.split("."))
    if first == 2 and second == 5 and third in (4, 29):  # ITU-T X.520 and X.509
        return True
    return max(first, second, third, fourth) < 32 or (first < 16 and second < 16 and third < 100)


def quads(text: str, first: int, last: int, scope: str) -> Iterator[Found]:
    """Find IPv4 addresses that are no version numbers, between two places of a text."""
    for match in _QUAD.finditer(text, first, last):
        at, end = match.span()
        if at >= 2 and text[at - 1] in "-/" and text[at - 2].isascii() and text[at - 2].isalpha():
            continue
        if re.match(r"[A-Za-z0-9_%]|[.+][A-Za-z0-9]|-[A-Za-z]", text[end : end + 2]):
            continue
        before = text[max(0, at - _LABEL_REACH) : at]
        if _VERSE_BEFORE.search(before):
            continue
        address = _ADDRESS_BEFORE.search(before)
        if not address and (_is_version(match[0]) or _VERSION_BEFORE.search(before) or _VERSION_AFTER.match(text, end)):
            continue
        if is_in_scope(match[0], scope):
            yield at, end, "ipv4"


def colons(text: str, at: int, end: int, scope: str) -> Iterator[Found]:
    """Find an IPv6 address in a run of hexadecimal digits and colons."""
    while end > at and text[end - 1] in ".:" and text[end - 2 : end] != "::":
        end -= 1
    if at and text[at - 1].isascii() and (text[at - 1].isalnum() or text[at - 1] in "_-."):
        return
    if end < len(text) and text[end].isascii() and (text[end].isalnum() or text[end] == "_"):
        return
    if is_in_scope(text[at:end], scope):
        yield at, end, "ipv6"
