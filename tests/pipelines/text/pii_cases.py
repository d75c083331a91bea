"""The labelled set of personal data: what must be found. What must not be is in `pii_negatives`.

`positives` gives the same texts on every machine.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from pii_values import PARTS

SEED = 4


class Case(NamedTuple):
    """A text, and what of it is personal data: (kind, value) in the order of the text; none in a hard negative."""

    text: str
    found: tuple[tuple[str, str], ...]
    label: str = ""

    def spans(self) -> list[tuple[int, int, str]]:
        """Say where the values stand: (first byte, end, kind)."""
        at, spans, data = 0, [], self.text.encode()
        for kind, value in self.found:
            start = data.index(value.encode(), at)
            at = start + len(value.encode())
            spans.append((start, at, kind))
        return spans


MIXED = (
    Case("电话：13812345678，邮箱abc@example.com。", (("phone", "13812345678"), ("email", "abc@example.com"))),
    Case("电话：１３８１２３４５６７８，邮箱ａ。", (("phone", "１３８１２３４５６７８"),)),
    Case(
        "联系人：李雷，手机13900139000，身份证11010519491231002X，卡号6225 8801 0000 0006。",
        (("phone", "13900139000"), ("cn_id", "11010519491231002X")),
    ),
    Case(
        "Jane, +44 20 7946 0958, jane@mail.co.uk; from 93.184.216.34 (2606:2800:220:1::248)",
        (
            ("phone", "+44 20 7946 0958"),
            ("email", "jane@mail.co.uk"),
            ("ipv4", "93.184.216.34"),
            ("ipv6", "2606:2800:220:1::248"),
        ),
    ),
    Case("a@b.com,c@d.org;e@f.net", (("email", "a@b.com"), ("email", "c@d.org"), ("email", "e@f.net"))),
    Case("13812345678/13912345679", (("phone", "13812345678"), ("phone", "13912345679"))),
    Case("010-62751234、010-62751235", (("phone", "010-62751234"), ("phone", "010-62751235"))),
    Case("Tel: 212-736-5000 / Fax: 212-736-5001", (("phone", "212-736-5000"), ("phone", "212-736-5001"))),
    Case("2019年5月12日拨打13812345678共3次", (("phone", "13812345678"),)),
    Case("Born 1949-12-31, ID 11010519491231002X, v1.2.3.4", (("cn_id", "11010519491231002X"),)),
    Case(
        "IBAN DE89 3704 0044 0532 0130 00, BIC COBADEFFXXX, Tel. 030/901820",
        (("iban", "DE89 3704 0044 0532 0130 00"), ("phone", "030/901820")),
    ),
    Case("QQ邮箱123456789@qq.com微信同号13711112222", (("email", "123456789@qq.com"), ("phone", "13711112222"))),
)


def positives(seed: int = SEED) -> list[Case]:
    """List the texts with personal data, at least 500; another seed gives other values."""
    cases = list(MIXED)
    for kind, part in PARTS.items():
        rng = random.Random(f"{seed}/{kind}")
        cases += [Case(context.format(value), ((kind, value),), kind) for value, context in part(rng)]
    return cases


class Score(NamedTuple):
    """How a detector did on one kind: right and missed are of the labels, wrong is what no label says."""

    right: int
    missed: int
    wrong: int

    @property
    def recall(self) -> float:
        """Share of the labels that were found, to the byte."""
        return self.right / (self.right + self.missed) if self.right + self.missed else 1.0

    @property
    def precision(self) -> float:
        """Share of what was found that is a label."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else 1.0


def score(cases: list[Case], found: list[list[tuple[int, int, str]]]) -> dict[str, Score]:
    """Compare what was found in each case, (first byte, end, kind), with its labels; a value counts if it is exact."""
    right, missed, wrong = ({kind: 0 for kind in PARTS} for _ in range(3))
    for case, spans in zip(cases, found, strict=True):
        labels = set(case.spans())
        for _, _, kind in labels & set(spans):
            right[kind] += 1
        for _, _, kind in labels - set(spans):
            missed[kind] += 1
        for _, _, kind in set(spans) - labels:
            wrong[kind] += 1
    return {kind: Score(right[kind], missed[kind], wrong[kind]) for kind in PARTS}
