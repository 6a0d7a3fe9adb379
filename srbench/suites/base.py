"""What a suite is, and the settings all suites share."""

from __future__ import annotations

from typing import Annotated, Protocol

from pydantic import Field

from srbench.errors import UserError

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Seeds = Annotated[int, Field(ge=1, le=10_000)] | Annotated[tuple[Seed, ...], Field(min_length=1)]


class Suite(Protocol):
    """Prompts and seeds; every prompt is run with every seed."""

    kind: str

    def list_prompts(self) -> tuple[str, ...]: ...

    def list_seeds(self) -> tuple[int, ...]: ...


def seeds(setting: int | tuple[int, ...]) -> tuple[int, ...]:
    """A number n means seeds 0 to n − 1; a list is taken as it is.

    >>> seeds(3), seeds((7, 9))
    ((0, 1, 2), (7, 9))
    """
    return tuple(range(setting)) if isinstance(setting, int) else tuple(dict.fromkeys(setting))


def unique(prompts: list[str], where: str) -> tuple[str, ...]:
    """Prompts without blank lines and repetitions.  Raises UserError where none is left."""
    kept = tuple(dict.fromkeys(p.strip() for p in prompts if p.strip()))
    if not kept:
        raise UserError(f"no prompt in {where}", "at least one line of text", "write one prompt a line")
    return kept
