import math

import numpy as np
import pyarrow as pa
import pytest

from pipelines.images.rules import LANGUAGE, PROFILES, ImageCleanConfig, derived, measure
from pipelines.text.language import LanguageConfig
from pipelines.text.rules import decide

ENGLISH = "A quick brown fox jumps over the lazy dog near the river bank"
CHINESE = "一只敏捷的棕色狐狸跳过了河边那条懒惰的狗"


def _measured(captions: list[str | None], metadata: list[str | None], config: ImageCleanConfig) -> dict:
    count = len(captions)
    grey = np.random.default_rng(0).integers(0, 256, (count, 64, 64), np.uint8)
    sizes = [(400, 300, 1000, 1)] * count
    return measure(grey, sizes, pa.array(captions, pa.string()), pa.array(metadata, pa.string()), config)


def test_captions_are_measured_only_where_a_rule_or_the_user_asks():
    assert not any("caption" in name for name in ImageCleanConfig().signal_names)
    assert "caption_words" in ImageCleanConfig(profile=("datacomp",)).signal_names
    assert "caption_words" in ImageCleanConfig(measure_captions=True).signal_names
    assert LANGUAGE not in ImageCleanConfig(measure_captions=True).signal_names
    assert LANGUAGE in ImageCleanConfig(language=LanguageConfig(keep=("zh",))).signal_names


def test_a_chinese_caption_is_counted_by_characters_as_texts_are_and_no_caption_has_none():
    found = _measured([ENGLISH, CHINESE, None], [None] * 3, ImageCleanConfig(measure_captions=True))
    assert found["caption_words"].tolist() == [13, 20, 0]
    assert found["caption_chars"].tolist() == [len(ENGLISH), len(CHINESE), 0]


def test_only_captions_in_a_language_to_keep_stay():
    config = ImageCleanConfig(profile=("none",), language=LanguageConfig(keep=("zh",)))
    found = _measured([ENGLISH, CHINESE, None], [None] * 3, config)
    assert found[LANGUAGE].to_pylist()[:2] == ["en", "zh"]
    assert decide(derived(found, config), config.rules).rule.tolist() == [0, -1, 0]


def test_datacomps_rules_remove_short_captions_small_images_and_banners():
    config = ImageCleanConfig(profile=("datacomp",))
    found = _measured([ENGLISH, "two words", "a b c", None], [None] * 4, config)
    reasons = [config.rules[i].name if i >= 0 else None for i in decide(found, config.rules).rule]
    assert reasons == [None, "min_caption_words", "min_caption_chars", "min_caption_words"]


def test_scores_of_the_metadata_are_signals_and_an_image_without_one_stays():
    config = ImageCleanConfig(profile=("none",), scores=("nsfw",), filters={"max_nsfw": 0.5})
    metadata = ['{"nsfw": 0.9}', '{"nsfw": "0.7"}', '{"nsfw": 0.5}', '{"nsfw": "?"}', '{"nsfw": true}', "{}", None]
    found = _measured([None] * len(metadata), metadata, config)
    assert found["nsfw"].tolist()[:3] == [0.9, 0.7, 0.5] and all(math.isnan(value) for value in found["nsfw"][3:])
    assert decide(found, config.rules).rule.tolist() == [0, 0, -1, -1, -1, -1, -1]


def test_a_limit_of_the_user_takes_the_place_of_a_profiles_and_null_switches_it_off():
    names = {rule.name: rule.limit for rule in ImageCleanConfig(filters={"max_aspect": 2, "min_contrast": None}).rules}
    assert names == {"max_aspect": 2}


@pytest.mark.parametrize("profile", PROFILES)
def test_every_rule_of_a_profile_is_about_a_signal_that_is_measured(profile):
    config = ImageCleanConfig(profile=(profile,))
    assert {rule.signal for rule in config.rules} <= set(config.signal_names)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"profile": ("laion",)}, "unknown profile 'laion'; known: default, datacomp, cleanvision, none"),
        ({"filters": {"min_nsfw": 1}}, "unknown rule 'min_nsfw'"),
        ({"scores": ("width",)}, "'width' is already the name of a signal"),
        ({"scores": ("nsfw", "nsfw")}, "'nsfw' is already the name of a signal"),
        ({"max_rejected": 2}, "max_rejected is a share from 0 to 1"),
    ],
)
def test_a_configuration_that_cannot_be_meant_says_so(settings, message):
    with pytest.raises(ValueError, match=message):
        ImageCleanConfig(**settings)
