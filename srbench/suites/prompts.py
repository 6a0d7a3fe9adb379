"""Any prompts: a list, or a file of them (text, CSV, JSONL)."""

from __future__ import annotations

import csv
import json
from dataclasses import field
from pathlib import Path

from srbench.errors import UserError
from srbench.registry import plugin
from srbench.suites import base
from srbench.suites.base import Seeding, Seeds


@plugin
class Prompts:
    """prompts: the texts, or the path of a UTF-8 file.  seeds: how many, or which.

    A file has one prompt a line; a `.csv` has them in its column `prompt`, a `.jsonl` one
    JSON text a line, or an object whose `prompt` it is.

    extended: prompts as a language model wrote them out, which the model is given instead: a
    text file, line i for prompt i, or a JSON file {original: extended}.
    seeding: of the noise, by a prompt's place in the list.
    """

    prompts: tuple[str, ...] | str
    seeds: Seeds = 1
    extended: str | None = None
    seeding: Seeding | None = field(default=None, metadata={"if_set": True})

    def __post_init__(self) -> None:
        self.list_prompts()

    def list_prompts(self) -> tuple[str, ...]:
        if not isinstance(self.prompts, str):
            return base.unique(list(self.prompts), "suite.prompts")
        path = Path(self.prompts)
        try:
            return base.unique(_read(path, path.read_text("utf-8-sig")), str(path))
        except UnicodeDecodeError:
            raise UserError(f"suite.prompts = {path}", "a UTF-8 text file", "save it as UTF-8") from None
        except (OSError, ValueError) as error:  # ValueError: no file can have such a name
            raise UserError(
                f"suite.prompts = {path} ({getattr(error, 'strerror', None) or error})",
                "a readable file with one prompt a line (or a .csv, a .jsonl), or a list of prompts",
                "check the path; a single prompt is written 'suite.prompts=[\"…\"]'",
            ) from None

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


def _read(path: Path, text: str) -> list[str]:
    """A file's prompts in their order, by the end of its name."""
    if path.suffix == ".csv":
        lines = csv.DictReader(text.splitlines(keepends=True))
        if "prompt" not in (lines.fieldnames or ()):
            raise UserError(
                f"suite.prompts = {path} with the columns {', '.join(lines.fieldnames or ()) or 'none'}",
                "a column prompt",
                "write it as the first line",
            )
        return [line["prompt"] or "" for line in lines]
    if path.suffix == ".jsonl":
        return [_prompt(path, i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    return text.splitlines()


def _prompt(path: Path, number: int, line: str) -> str:
    """One line of a JSONL file."""
    try:
        plain = json.loads(line)
    except ValueError:
        plain = None
    prompt = plain.get("prompt") if isinstance(plain, dict) else plain
    if not isinstance(prompt, str):
        raise UserError(
            f"suite.prompts = {path}, line {number}: {line.strip()}",
            'a JSON text, or an object with a "prompt"',
            'as {"prompt": "a cat"}',
        )
    return prompt
