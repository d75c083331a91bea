"""What cleaning does to images, and which of them stay: the configuration, its rules, and the signals they look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from pipelines.images import signals as image_signals
from pipelines.images.config import ImageConfig
from pipelines.text import language
from pipelines.text import signals as text_signals
from pipelines.text.language import LanguageConfig
from pipelines.text.rules import Rule, rules

CAPTION = "caption_"
LANGUAGE = f"{CAPTION}language"
_FIT = f"{LANGUAGE}_fit"
_CAPTION_DOCS = {
    **{f"{CAPTION}{name}": f"{about}, of the caption" for name, about in text_signals.DOCS.items()},
    f"{LANGUAGE}_confidence": "how sure the language of the caption is, 0…1",
}
_FIT_DOCS = {_FIT: f"{LANGUAGE}_confidence where language.keep has the language (or is empty), else 0; not stored"}
_LEAST_FIT = 1e-9  # with keep and no min_confidence: any confidence above 0

_OURS = "Gristmill"
_DATACOMP = "DataComp (Gadre et al. 2023, section 3.2 and appendix)"
_CLEANVISION = "cleanvision 0.3, image_property_issue_manager.py"
PROFILES: dict[str, tuple[Rule, ...]] = {
    "default": (
        Rule("max_aspect", 8, f"{_OURS}: banners and rulers"),
        Rule("min_contrast", 2, f"{_OURS}: blank but for compression"),
    ),
    "datacomp": (
        Rule("min_short_side", 200, _DATACOMP),
        Rule("max_aspect", 3, _DATACOMP),
        Rule("min_caption_words", 3, f"{_DATACOMP}: more than 2"),
        Rule("min_caption_chars", 6, f"{_DATACOMP}: more than 5"),
    ),
    "cleanvision": (
        Rule("min_brightness_99", 0.32, f"{_CLEANVISION}: dark"),
        Rule("max_brightness_5", 0.95, f"{_CLEANVISION}: light, score < 0.05"),
        Rule("max_aspect", 1 / 0.35, f"{_CLEANVISION}: odd_aspect_ratio"),
        Rule("min_entropy", 3, f"{_CLEANVISION}: low_information, 0.1 × entropy < 0.3; of grey, there of all channels"),
        Rule("min_sharpness", 34.25, f"{_CLEANVISION}: blurry, 1 - exp(-0.01 × sharpness) < 0.29"),
    ),
    "none": (),
}


@dataclass(frozen=True)
class ImageCleanConfig:
    """How images are prepared, and which ones are removed.

    process: how they are decoded, resized and encoded. profile: lists of rules, asked in order: default, datacomp,
    cleanvision, none. filters: limits of your own, the name of a rule (min_ or max_ and a signal) and its limit, or
    null to switch it off. scores: fields of the metadata that hold numbers (of a classifier of your own, for instance
    nsfw, aesthetic, clip), each a signal of that name; an image without one stays. measure_captions: measure captions
    although no rule asks; the signals are those of texts with 'caption_' before. language: of captions, as for texts.
    max_rejected: share of a source's images that may be undecodable before the run fails; rejected_floor: so many may
    be, whatever their share.
    """

    process: ImageConfig = field(default_factory=ImageConfig)
    profile: tuple[str, ...] = ("default",)
    filters: dict[str, float | None] = field(default_factory=dict)
    scores: tuple[str, ...] = ()
    measure_captions: bool = False
    language: LanguageConfig = field(default_factory=LanguageConfig)
    max_rejected: float = 0.05
    rejected_floor: int = 100

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown profile or rule, or a score named as a signal is."""
        taken = {*image_signals.DOCS, *_CAPTION_DOCS, *_FIT_DOCS, LANGUAGE}
        if bad := [name for name in self.scores if name in taken or self.scores.count(name) > 1]:
            raise ValueError(f"scores: {bad[0]!r} is already the name of a signal")
        if not 0 <= self.max_rejected <= 1:
            raise ValueError(f"max_rejected is a share from 0 to 1; got {self.max_rejected}")
        _ = self.rules

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in their order: the language of captions, then those of the profiles, then the user's own."""
        first = []
        if self.language.keep:
            first.append(Rule(f"min_{_FIT}", max(self.language.min_confidence, _LEAST_FIT), "language.keep"))
        elif self.language.min_confidence:
            first.append(Rule(f"min_{LANGUAGE}_confidence", self.language.min_confidence, "language.min_confidence"))
        known = (*image_signals.DOCS, *_CAPTION_DOCS, *_FIT_DOCS, *self.scores)
        return rules(self.profile, self.filters, known, first, PROFILES)

    @property
    def captions(self) -> tuple[str, ...]:
        """The signals of captions that are measured: none, those of texts, or those and the language."""
        asked = {rule.signal for rule in self.rules}
        of_language = bool(asked & {_FIT, f"{LANGUAGE}_confidence"})
        if not (self.measure_captions or asked & set(_CAPTION_DOCS) or of_language):
            return ()
        plain = tuple(f"{CAPTION}{name}" for name in text_signals.SIGNALS)
        return (*plain, LANGUAGE, f"{LANGUAGE}_confidence") if of_language else plain

    @property
    def signal_names(self) -> tuple[str, ...]:
        """The signals that `measure` gives, in its order; all are float64 but LANGUAGE, a string."""
        return (*image_signals.SIGNALS, *self.captions, *self.scores)


def measure(
    thumbnails: np.ndarray,
    sizes: Sequence[tuple[int, int, int, int]],
    captions: pa.Array,
    metadata: pa.Array,
    config: ImageCleanConfig,
) -> dict[str, np.ndarray | pa.Array]:
    """Measure images, their captions and their scores: signal → float64[n], LANGUAGE a string array.

    thumbnails, sizes: see `signals.signals`. captions, metadata: string arrays; a null caption is measured as "".
    """
    measured: dict[str, np.ndarray | pa.Array] = dict(image_signals.signals(thumbnails, sizes))
    if config.captions:
        texts = captions.fill_null("")
        measured |= {f"{CAPTION}{name}": values for name, values in text_signals.signals(texts).items()}
        if LANGUAGE in config.captions:
            measured[LANGUAGE], measured[f"{LANGUAGE}_confidence"] = language.languages(texts, config.language)
    if config.scores:
        records = [orjson.loads(raw) if raw else {} for raw in metadata.to_pylist()]
        measured |= {name: np.array([_number(record.get(name)) for record in records]) for name in config.scores}
    return {name: measured[name] for name in config.signal_names}


def _number(value: Any) -> float:
    """A score, or NaN where there is none; numbers may be written as text, as in CSV files."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return float("nan")
    try:
        return float(value)
    except ValueError:
        return float("nan")


def derived(measured: Mapping[str, np.ndarray | pa.Array], config: ImageCleanConfig) -> dict[str, Any]:
    """Add the signal that is not stored, because the decision's settings are in it, to what `measure` measured."""
    if LANGUAGE not in measured:
        return dict(measured)
    return {**measured, _FIT: language.fit(measured[LANGUAGE], measured[f"{LANGUAGE}_confidence"], config.language)}
