"""What cleaning does to a batch of texts, and what it measures of them: repair, edits, personal data, signals.

`CleanConfig` is the whole configuration; `prepare` is a pure function of texts and configuration.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from pipelines.text import bad_words, edits, language, pages, pii, signals
from pipelines.text.language import LanguageConfig
from pipelines.text.normalize import NormalizeConfig, normalize
from pipelines.text.pii import PiiConfig
from pipelines.text.rules import Rule, groups_of, rules
from pipelines.text.unicode import SCRIPTS

LANGUAGE, SCRIPT = "language", "scripts"
LANGUAGE_DOCS = {
    "language": "code of the language, ISO 639-1 or 639-3; 'und' without letters",
    "language_confidence": "how sure that is, 0…1",
    "simplified_ratio": "characters of Simplified Chinese only / those of one of the two scripts; NaN without any",
}
SCRIPT_DOCS = {f"script_{name}": f"letters of the script {name!r} / letters" for name in SCRIPTS}
LANGUAGE_FIT = "language_fit"
DERIVED_DOCS = {
    LANGUAGE_FIT: "language_confidence where language.keep has the language (or is empty), else 0; not stored"
}
_LEAST_FIT = 1e-9  # with keep and no min_confidence: any confidence above 0


def known_signals() -> dict[str, str]:
    """Every signal that a rule may bound, and what it is."""
    of_pages = {name: text for docs in pages.GROUPS.values() for name, text in docs.items()}
    of_language = {name: text for name, text in LANGUAGE_DOCS.items() if name != LANGUAGE}
    return {
        **signals.DOCS,
        **of_pages,
        **edits.DOCS,
        **pii.DOCS,
        **bad_words.DOCS,
        **of_language,
        **DERIVED_DOCS,
        **SCRIPT_DOCS,
    }


@dataclass(frozen=True)
class CleanConfig:
    """How documents are repaired, and which ones are removed.

    edits: html_entities (before the repair), c4_lines, refinedweb_lines. profile: lists of rules, asked in order:
    default, gopher, c4, fineweb, refinedweb, chinese, none (see docs/cleaning.md). filters: limits of your own, the
    name of a rule (min_ or max_ and a signal) and its limit, or null to switch it off. measure: groups of signals to
    measure although no rule asks for them: gopher, repetition, fineweb, c4, language, scripts. ceilings: the greatest
    share of a source that may be removed, by all rules ('wiki'), by one ('wiki/min_words'), or of each source ('*',
    '*/min_words'); more fails the run. bad_words: path of a list of your own, UTF-8, one word or phrase a line; a
    document with one of them is removed. compression: of the shards' buffers: null (readers map memory) or 'zstd'
    (smaller; every reader copies).
    """

    normalize: NormalizeConfig = field(default_factory=NormalizeConfig)
    edits: tuple[str, ...] = ()
    pii: PiiConfig = field(default_factory=PiiConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    measure: tuple[str, ...] = ()
    profile: tuple[str, ...] = ("default",)
    filters: dict[str, float | None] = field(default_factory=dict)
    ceilings: dict[str, float] = field(default_factory=dict)
    bad_words: str | None = None
    compression: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for what does not exist, or for a rule about something that is not measured."""
        for what, names, known in (
            ("edit", self.edits, edits.EDITS),
            ("group of signals", self.measure, (*pages.GROUPS, LANGUAGE, SCRIPT)),
        ):
            if unknown := [name for name in names if name not in known]:
                raise ValueError(f"unknown {what} {unknown[0]!r}; known: {', '.join(known)}")
        if bad := [key for key, share in self.ceilings.items() if not 0 <= share <= 1]:
            raise ValueError(f"ceilings: {bad[0]} is a share from 0 to 1; got {self.ceilings[bad[0]]}")
        for rule in self.rules:
            if rule.signal in edits.DOCS and "refinedweb_lines" not in self.edits:
                raise ValueError(f"{rule.name} is about what refinedweb_lines takes out: add it to edits")
            if rule.signal in bad_words.DOCS and self.bad_words is None:
                raise ValueError(f"{rule.name} needs bad_words, the path of a list")
            if rule.signal in pii.DOCS and rule.signal not in self._counted:
                raise ValueError(f"{rule.name} needs pii.mode (or its kind in pii.modes) to be other than none")

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in their order: language, personal data, bad words, then those of the profiles."""
        first = []
        if self.language.keep:
            first.append(Rule("min_language_fit", max(self.language.min_confidence, _LEAST_FIT), "language.keep"))
        elif self.language.min_confidence:
            first.append(Rule("min_language_confidence", self.language.min_confidence, "language.min_confidence"))
        first += [Rule(f"max_pii_{kind}", 0, "pii") for kind in self.pii.wanted if self.pii.of(kind) == "drop"]
        first += [Rule("max_bad_words", 0, "C4 (Raffel et al. 2020, section 2.2)")] if self.bad_words else []
        return rules(self.profile, self.filters, known_signals(), first)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of page signals that are measured, in the order of `pages.GROUPS`."""
        wanted = {*groups_of(self.rules), *self.measure}
        return tuple(group for group in pages.GROUPS if group in wanted)

    @property
    def further(self) -> tuple[str, ...]:
        """Whether languages (LANGUAGE) and shares of scripts (SCRIPT) are measured: those of the two that are."""
        asked = {rule.signal for rule in self.rules}
        docs = {LANGUAGE: {**LANGUAGE_DOCS, **DERIVED_DOCS}, SCRIPT: SCRIPT_DOCS}
        return tuple(name for name, its in docs.items() if name in self.measure or asked & set(its))

    @property
    def _counted(self) -> tuple[str, ...]:
        return tuple(f"pii_{kind}" for kind in self.pii.wanted)

    @property
    def signal_names(self) -> tuple[str, ...]:
        """The signals that `prepare` measures, in its order; all are float64 but 'language', a string."""
        names = [*signals.SIGNALS, *(name for group in self.groups for name in pages.GROUPS[group])]
        names += edits.DOCS if "refinedweb_lines" in self.edits else ()
        names += bad_words.DOCS if self.bad_words else ()
        names += [*self._counted, *(LANGUAGE_DOCS if LANGUAGE in self.further else ())]
        return (*names, *(SCRIPT_DOCS if SCRIPT in self.further else ()))


@dataclass(frozen=True)
class Given:
    """What a configuration names and does not hold. key: of digests of personal data. bad_words: the list's words."""

    key: bytes = b""
    bad_words: tuple[str, ...] = ()

    def digest(self) -> str:
        """What tells one from another and gives neither away: hex."""
        key = hashlib.sha512(self.key).digest() if self.key else b""  # of any length, all of it
        return hashlib.blake2b(json.dumps(self.bad_words).encode(), digest_size=16, key=key).hexdigest()


def prepare(
    texts: pa.Array, config: CleanConfig, given: Given | None = None
) -> tuple[pa.Array, dict[str, np.ndarray | pa.Array]]:
    """Repair, edit and redact texts, and measure them: (texts, signal → float64[n], or a string array for 'language').

    What is found of personal data is counted before it is replaced, all else is measured of what the text is
    afterwards.
    """
    given = given or Given()
    if "html_entities" in config.edits:  # first: what they stand for needs repair as all else does
        texts = edits.html_entities(texts)
    texts, edited = edits.edit(normalize(texts, config.normalize), config.edits)
    found = pii.find(texts, config.pii)
    texts = pii.apply(texts, found, config.pii, given.key)
    measured: dict[str, np.ndarray | pa.Array] = {}
    measured |= signals.signals(texts)
    measured |= pages.page_signals(texts, config.groups)
    measured |= edited
    if config.bad_words:
        measured |= {"bad_words": bad_words.holds(texts, given.bad_words)}
    if config.pii.wanted:
        measured |= pii.counts(found, len(texts))
    if LANGUAGE in config.further:
        measured |= _languages(texts, config.language)
    if SCRIPT in config.further:
        measured |= dict(zip(SCRIPT_DOCS, language.script_shares(texts), strict=True))
    return texts, {name: measured[name] for name in config.signal_names}


def derived(measured: Mapping[str, np.ndarray | pa.Array], config: CleanConfig) -> dict[str, np.ndarray | pa.Array]:
    """Add the signals that are not stored, because the decision's settings are in them, to what `prepare` measured."""
    if LANGUAGE not in measured:
        return dict(measured)
    fit = language.fit(measured[LANGUAGE], measured["language_confidence"], config.language)
    return {**measured, LANGUAGE_FIT: fit}


def _languages(texts: pa.Array, config: LanguageConfig) -> dict[str, np.ndarray | pa.Array]:
    code, confidence = language.languages(texts, config)
    return {
        "language": code,
        "language_confidence": confidence,
        "simplified_ratio": language.simplified_ratio(texts),
    }
