"""Make dirty copies of real texts, seeded: what crawls, broken decoders and cut downloads do to a page."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator

MENUS = {
    "en": ("Home", "About us", "Contact", "Login", "Register", "Products", "Cart (0)", "Share this", "Read more..."),
    "zh": ("首页", "关于我们", "联系我们", "登录", "注册", "产品中心", "购物车（0）", "分享到微博", "阅读更多……"),
}
NOTICES = {
    "en": (
        "This site uses cookies. By using it you accept our cookie policy.",
        "Please enable JavaScript to view this page.",
        "Copyright 2014 Example Inc. All rights reserved. Terms of use. Privacy policy.",
        "Click here to subscribe to our newsletter and get 10% off",
    ),
    "zh": (
        "本网站使用Cookie，继续浏览即表示您同意我们的Cookie政策。",
        "请启用JavaScript以查看此页面。",
        "版权所有 2014 示例公司 保留所有权利 京ICP备00000000号",
        "点击这里订阅我们的新闻，立享九折",
    ),
}


def mojibake(text: str, rng: random.Random, language: str) -> str:
    """Decode UTF-8 as another encoding; where that fails, as U+FFFD."""
    wrong = "gbk" if language == "zh" and rng.random() < 0.5 else "cp1252"
    return text.encode().decode(wrong, "replace")


def boilerplate(text: str, rng: random.Random, language: str) -> str:
    """Leave little of the text between menus and notices."""
    lines = rng.choices(MENUS[language], k=rng.randint(20, 60)) + rng.choices(NOTICES[language], k=rng.randint(2, 8))
    rng.shuffle(lines)
    start = rng.randrange(max(1, len(text) - 200))
    lines.insert(rng.randrange(len(lines)), text[start : start + rng.randint(0, 120)].replace("\n", " "))
    return "\n".join(lines)


def repetition(text: str, rng: random.Random, language: str) -> str:
    """Repeat a line, a paragraph or a phrase many times."""
    start, size = rng.randrange(max(1, len(text) - 200)), rng.randint(20, 120)
    phrase, times = text[start : start + size].strip() or text[:size], rng.randint(6, 40)
    joint = rng.choice(["\n", "\n\n", " "])
    return text[: rng.randint(0, 400)] + joint + joint.join([phrase] * times)


def truncation(text: str, rng: random.Random, language: str) -> str:
    """Cut the text off after a few words, or lines after a few characters."""
    if rng.random() < 0.5:
        return text[: rng.randint(5, 25 if language == "zh" else 120)]
    lines = re.split(r"[.。\n]", text)[: rng.randint(5, 40)]
    return "\n".join(line.strip()[: rng.randint(5, 30)] + "..." for line in lines if line.strip())


def markup(text: str, rng: random.Random, language: str) -> str:
    """Bury the text in tags, style sheets and scripts."""
    script = "".join(
        f"function f{i}(){{var x{i}=[{i},{i + 1}];return x{i}[0]!=null;}}\n" for i in range(rng.randint(5, 40))
    )
    style = "".join(f".c{i}{{margin:{i}px 0 0 {i}px;padding:0!important;}}\n" for i in range(rng.randint(5, 60)))
    words = text.split(" ") if language == "en" else list(text[:300])
    tagged = "".join(f'<td class="c{i}"><b>{word}</b></td>' for i, word in enumerate(words[: rng.randint(5, 60)]))
    return f"<html><head><style>{style}</style><script>{script}</script></head><body>{tagged}</body></html>"


KINDS: dict[str, Callable[[str, random.Random, str], str]] = {
    "mojibake": mojibake,
    "boilerplate": boilerplate,
    "repetition": repetition,
    "truncation": truncation,
    "markup": markup,
}


def dirty(texts: Iterable[str], language: str, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Yield (kind, dirty copy) of every text, the kinds in turn; language: 'en' or 'zh'."""
    rng = random.Random(seed)
    kinds = list(KINDS)
    for i, text in enumerate(texts):
        kind = kinds[i % len(kinds)]
        yield kind, KINDS[kind](text, rng, language)
