"""Captions of the shapes world that no training step has seen."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import field
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from srbench.config.registry import plugin
from srbench.errors import UserError
from srbench.shapes.world import parse, scenes
from srbench.suites import base
from srbench.suites.base import LIST, NUMBER, Seeding, Seeds, number_or_list

EXAMPLE = "as 'a red circle moving left on a black background'"


def _sentence(given: object) -> object:
    if not isinstance(given, str):
        raise ValueError(f"a caption, {EXAMPLE}; a number alone says how many")
    return given


Captions = Annotated[
    Annotated[int, Field(ge=1), NUMBER]
    | Annotated[tuple[Annotated[str, BeforeValidator(_sentence)], ...], LIST],
    number_or_list("how many captions, or a list of them; a file, or any other text, takes suite=prompts"),
]


@plugin
class Shapes:
    """prompts: how many held-out captions, or which.

    One thing and two things in turn as long as captions with one last (`test` has 18 of
    those, `tune` 25), then two things.
    split: `test` is held out for reporting; thresholds are chosen on `tune`.
    seeding: of the noise, by a caption's place among all of the split, or among those listed.
    """

    prompts: Captions = 64
    seeds: Seeds = 5
    split: Literal["tune", "test"] = "test"
    seeding: Seeding | None = field(default=None, metadata={"if_set": True})

    def __post_init__(self) -> None:
        self.list_prompts()
        if isinstance(self.prompts, int) and self.prompts > (most := len(_ordered(self.split))):
            raise UserError(
                f"suite.prompts = {self.prompts}", f"at most {most}, the captions held out", "ask for fewer"
            )

    def list_prompts(self) -> tuple[str, ...]:
        if isinstance(self.prompts, int):
            return tuple(_ordered(self.split)[: self.prompts])
        return base.listed_by_hand([_caption(p) for p in self.prompts])

    def listed(self) -> tuple[str, ...]:
        """All captions of the split, or those that are listed by hand."""
        return tuple(_ordered(self.split)) if isinstance(self.prompts, int) else self.list_prompts()

    def list_seeds(self) -> tuple[int, ...]:
        return base.seeds(self.seeds)


@functools.cache
def _ordered(split: Literal["tune", "test"]) -> tuple[str, ...]:
    """All captions of the split: one and two things in turn, each in a fixed random order."""
    one, two = (sorted((s.caption for s in scenes(n, split)), key=_shuffle) for n in (1, 2))
    paired = [c for pair in zip(one, two, strict=False) for c in pair]
    return (*paired, *two[len(one) :])


def _caption(prompt: str) -> str:
    """The prompt as this world writes it.  Raises UserError where it is not of this world."""
    try:
        return parse(prompt).caption
    except ValueError:
        raise UserError(
            f"suite.prompts: {prompt!r}",
            "a sentence of the shapes world",
            f"{EXAMPLE}; for any other text use suite=prompts",
        ) from None


def _shuffle(caption: str) -> str:
    return hashlib.sha256(b"order " + caption.encode()).hexdigest()
