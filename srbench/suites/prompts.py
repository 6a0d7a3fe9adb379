"""Any prompts: a list, or a file of them (text, CSV, JSON, JSONL)."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

from srbench.config import texts
from srbench.config.registry import plugin
from srbench.errors import UserError
from srbench.suites import base
from srbench.suites.base import Seeding, Seeds


def _path(given: object) -> object:
    """A number alone is a file's name here; in other suites it says how many prompts."""
    return str(given) if type(given) is int else given


@plugin
class Prompts:
    """prompts: the texts, or the path of a UTF-8 file.  seeds: how many, or which.

    A `.txt` file has one prompt a line, and empty lines are skipped.  A `.csv` file has the prompts
    in its column `prompt`.  A `.json` file has a list of texts, or of objects with a `prompt`;
    a `.jsonl` file has one of these a line.  Prompts are taken as they are; a file that does not
    give its prompts exactly, or gives one twice, is refused with the line.

    extended: prompts as a language model wrote them out, which the model is given instead: a
    text file, line i for prompt i, or a JSON file {original: extended}.
    seeding: of the noise, by a prompt's place in the list.
    """

    prompts: Annotated[tuple[str, ...] | str, BeforeValidator(_path)]
    seeds: Seeds = 1
    extended: str | None = None
    seeding: Seeding | None = field(default=None, metadata={"if_set": True})

    def __post_init__(self) -> None:
        self.list_prompts()

    def list_prompts(self) -> tuple[str, ...]:
        if isinstance(self.prompts, str):
            return texts.prompts(Path(self.prompts), "suite.prompts")
        return base.listed_by_hand(self.prompts)

    def list_seeds(self) -> tuple[int, ...]:
        return base.seeds(self.seeds)

    def mistakes(self) -> list[UserError]:
        """What is missing of the extensions."""
        listed = self.list_prompts()
        return [] if self.extended is None else base.lacking(self.extended, listed, listed)

    def text(self, prompt: str) -> str:
        """What the model is given for a prompt: its extension, where there is one."""
        if self.extended is None:
            return prompt
        return base.extended(self.extended, self.listed(), prompt)

    def listed(self) -> tuple[str, ...]:
        """The list that a file of lines goes by."""
        return self.list_prompts()

    def variant(self) -> str:
        return "" if self.extended is None else base.extended_variant(self.extended, self.list_prompts())
