"""Any prompts: a list, or a text file with one a line."""

from __future__ import annotations

from pathlib import Path

from srbench.errors import UserError
from srbench.registry import plugin
from srbench.suites import base
from srbench.suites.base import Seeds


@plugin
class Prompts:
    """prompts: the texts, or the path of a UTF-8 file.  seeds: how many, or which."""

    prompts: tuple[str, ...] | str
    seeds: Seeds = 1

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
