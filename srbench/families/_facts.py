"""What a checkpoint's own configurations say of it: strides, channels, schedule; no torch.

A family reads its facts from these files and states what it supports.  All else is refused before
anything loads, with the file and the key that rule it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srbench.errors import UserError
from srbench.families import _checkpoint

if TYPE_CHECKING:
    from srbench.families._settings import FamilySettings


OTHER = "take a checkpoint that this family supports"


@dataclass(frozen=True)
class Facts:
    """Sizes that the checkpoint fixes.

    spatial, temporal: pixels and frames for each number of a latent.  channels: of the latents.
    patch: latent (height, width) that one token of a transformer covers.
    """

    spatial: int = 8
    temporal: int = 4
    channels: int = 16
    patch: tuple[int, int] = (2, 2)

    def latent_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Frames, height and width of the latents of a video.

        >>> Facts().latent_size(81, 480, 832), Facts(spatial=16).latent_size(81, 704, 1280)
        ((21, 60, 104), (21, 44, 80))
        """
        return (frames - 1) // self.temporal + 1, height // self.spatial, width // self.spatial

    def tokens(self, frames: int, height: int, width: int) -> int:
        """How many tokens a transformer makes of a video."""
        t, h, w = self.latent_size(frames, height, width)
        return t * (h // self.patch[0]) * (w // self.patch[1])

    def misfits(self, frames: int, height: int, width: int) -> list[UserError]:
        """Sizes of a video that these strides cannot make."""
        found = []
        for i, (name, value) in enumerate((("height", height), ("width", width))):
            step = self.spatial * self.patch[i]
            if value % step:
                near = max(step, round(value / step) * step)
                why = f"a multiple of {step}: the VAE's stride {self.spatial} times the patch {self.patch[i]}"
                found.append(UserError(f"family.{name} = {value}", why, f"set family.{name}={near}"))
        if (frames - 1) % self.temporal:
            n = self.temporal
            why = f"{n} n + 1 frames, where {n} is the VAE's stride in time"
            do = f"set family.frames={frames // n * n + 1}"
            found.append(UserError(f"family.frames = {frames}", why, do))
        return found


@dataclass(frozen=True)
class Config:
    """A JSON file of a checkpoint.

    where: the setting that names the checkpoint, for messages.  A file that is missing or torn has no keys
    here: `Weights.mistakes` reports it.
    """

    where: str
    file: Path

    @cached_property
    def plain(self) -> Mapping[str, Any]:
        try:
            return _checkpoint.read_json(self.file)
        except _checkpoint.Fault:
            return {}

    @property
    def there(self) -> bool:
        return bool(self.plain)

    def get(self, key: str, default: Any = None) -> Any:
        return self.plain.get(key, default)

    def whole(self, key: str, default: int) -> int:
        """A whole number above 0.  Raises UserError for any other value."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 1 or value != int(value):
            raise self.refusal(key, "a whole number above 0")
        return int(value)

    def listed(self, key: str, default: Iterable[Any]) -> list[int]:
        """A list of whole numbers.  Raises UserError for any other value."""
        value = self.get(key, default)
        if not isinstance(value, (list, tuple)) or not all(isinstance(n, int) and n >= 0 for n in value):
            raise self.refusal(key, "a list of whole numbers")
        return [int(n) for n in value]

    def refusal(
        self, key: str, expected: str, do: str = "take a checkpoint that this family supports"
    ) -> UserError:
        """The error for one key of the file."""
        shown = "missing" if key not in self.plain else repr(self.plain[key])
        return UserError(f"{self.where}: {key} is {shown} in {self.file}", expected, do)

    def unless_one_of(
        self, key: str, allowed: Iterable[Any], expected: str, default: Any = None
    ) -> list[UserError]:
        """The error for a key with another value than these; none where the file is missing."""
        fits = not self.there or self.get(key, default) in list(allowed)
        return [] if fits else [self.refusal(key, expected)]


def config(family: FamilySettings, role: str, *inside: str) -> Config:
    """A JSON file of `large`, `small` or `components`."""
    return Config(f"family.{role}", family.weights(role).folder.joinpath(*inside))


def transformers(family: FamilySettings) -> list[Config]:
    """The configurations of the family's two models."""
    return [
        config(family, role, family.weights(role).subfolder or "transformer", "config.json")
        for role in ("large", "small")
    ]


def pipelines(family: FamilySettings) -> list[Config]:
    """The model_index.json of every folder that the family reads, where there is one."""
    found = [config(family, role, "model_index.json") for role in ("components", "large", "small")]
    return list({c.file: c for c in found if c.there}.values())


def unfit_model(model: Config, expected_class: str, channels: int) -> list[UserError]:
    """Why a transformer cannot be a family's text-to-video model."""
    found = model.unless_one_of("_class_name", [expected_class], f"{expected_class}, which this family runs")
    if found or not model.there:
        return found
    for key in ("in_channels", "out_channels"):
        if model.whole(key, channels) != channels:
            why = (
                f"{channels}, the channels of the VAE's latents: a model with others has an image or a video"
                " as a further input, or another VAE"
            )
            return [model.refusal(key, why, "take a text-to-video checkpoint of this VAE")]
    return []


def unfit(family: FamilySettings) -> list[UserError]:
    """Why the files that are on this machine cannot run as this family.

    What is missing is no reason here: `FamilySettings.mistakes` reports that.
    """
    try:
        found = list(family.unfit_configs())
        return found or family.facts().misfits(family.frames, family.height, family.width)
    except UserError as error:
        return [error]
