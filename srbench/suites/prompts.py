"""Any prompts: a list, or a text file with one a line."""

from __future__ import annotations

from pathlib import Path

from srbench.errors import UserError
from srbench.registry import plugin
from srbench.suites import base
from srbench.suites.base import Seeds


@plugin
class Prompts:
    """prompts: the texts, or the path of a UTF-8 file.  seeds: how many, or which.

    extended: prompts as a language model wrote them out, which the model is given instead: a
    text file, line i for prompt i, or a JSON file {original: extended}.
    """

    prompts: tuple[str, ...] | str
    seeds: Seeds = 1
    extended: str | None = None

    def __post_init__(self) -> None:
        self.list_prompts()

    def list_prompts(self) -> tuple[str, ...]:
        if not isinstance(self.prompts, str):
            return base.unique(list(self.prompts), "suite.prompts")
        path = Path(self.prompts)
        try:
            return base.unique(path.read_text("utf-8").splitlines(), str(path))
        except UnicodeDecodeError:
            raise UserError(f"suite.prompts = {path}", "a UTF-8 text file", "save it as UTF-8") from None
        except (OSError, ValueError) as error:  # ValueError: no file can have such a name
            raise UserError(
                f"suite.prompts = {path} ({getattr(error, 'strerror', None) or error})",
                "a readable text file with one prompt a line, or a list of prompts",
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
        return base.extended(self.extended, self.list_prompts(), prompt)

    def variant(self) -> str:
        return "" if self.extended is None else base.extended_variant(self.extended, self.list_prompts())
