"""The configuration of the stage `clean`: how texts are prepared, and how images are."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.images.rules import ImageCleanConfig
from pipelines.text import prepare


@dataclass(frozen=True)
class CleanConfig(prepare.CleanConfig):
    """Of texts, where `ceilings` and `compression` count for images too; what else is for images: `images`."""

    images: ImageCleanConfig = field(default_factory=ImageCleanConfig)


CleanConfig.__doc__ = (
    f"{prepare.CleanConfig.__doc__}\n    images: all that is for images but ceilings and compression.\n    "
)
