"""What a suite is, and the settings all suites share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import AfterValidator, Discriminator, Field, Tag
from pydantic.dataclasses import dataclass

from srbench.config import texts
from srbench.config.registry import STRICT
from srbench.config.texts import Entry
from srbench.errors import UserError

Seed = Annotated[int, Field(ge=0, lt=2**63)]
NUMBER, LIST = Tag("a number"), Tag("a list")


def number_or_list(told: str) -> Discriminator:
    """Which of the two a setting is, so that its mistakes are told as of that one.

    told: what is expected, where it is neither.
    """

    def kind(value: object) -> str | None:
        if isinstance(value, (list, tuple)):
            return LIST.tag
        return NUMBER.tag if isinstance(value, (int, float)) or str(value).isdecimal() else None

    return Discriminator(kind, custom_error_type="neither", custom_error_message=told)


def _some(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if not seeds:
        raise ValueError("one seed at least")
    return seeds


Seeds = Annotated[
    Annotated[int, Field(ge=1, le=10_000), NUMBER] | Annotated[tuple[Seed, ...], AfterValidator(_some), LIST],
    number_or_list("how many seeds, or a list of them, as [0,7]"),
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Seeding:
    """The seed of the noise of a prompt's video: prompt · i + seed · j.

    i: the prompt's place, from 0, in the suite's full list, whichever of its prompts are run.
    j: the number that `seeds` counts or lists, by which a video is named and paired.  Where prompt is 0
    all prompts start from the same noises.
    """

    prompt: Annotated[int, Field(ge=0, le=10**12)] = 0
    seed: Annotated[int, Field(ge=1, le=10**12)] = 1

    @property
    def is_plain(self) -> bool:
        """Whether the noise's seed is j itself."""
        return self == Seeding()

    @property
    def said(self) -> str:
        """For a reader.

        >>> Seeding(prompt=100000).said, Seeding(prompt=1, seed=1000).said
        ('100000 · i + j', 'i + 1000 · j')
        """
        parts = [(self.prompt, "i"), (self.seed, "j")]
        return " + ".join(name if n == 1 else f"{n} · {name}" for n, name in parts if n)


class Suite(Protocol):
    """Prompts and seeds; every prompt is run with every seed.

    A suite may leave out `text` and `variant`: then the model is given the prompts.  It may have a
    `seeding`, and `listed`: the full list that its prompts are some of.
    """

    kind: str

    def list_prompts(self) -> tuple[str, ...]: ...

    def list_seeds(self) -> tuple[int, ...]: ...

    def listed(self) -> tuple[str, ...]:
        """The full list, in whose order `Seeding` counts; `list_prompts` where it is left out."""
        ...

    def text(self, prompt: str) -> str:
        """What the model is given for a prompt; scores go by the prompt itself."""
        ...

    def variant(self) -> str:
        """Equal for two suites that give the model the same texts; empty for the prompts themselves."""
        ...


def text(suite: Suite, prompt: str) -> str:
    """What a suite gives the model for one of its prompts."""
    return suite.text(prompt) if hasattr(suite, "text") else prompt


def variant(suite: Suite) -> str:
    """What tells the texts of a suite from its prompts; empty where they are the same."""
    return suite.variant() if hasattr(suite, "variant") else ""


def seeding(suite: Suite) -> Seeding:
    """How a suite seeds the noise; by the seed's number where it does not say."""
    return getattr(suite, "seeding", None) or Seeding()


def offsets_of(suite: Suite) -> dict[str, int]:
    """What each prompt of a suite adds to its noises' seeds; see `Seeding`.

    Of two entries of a list with one prompt the first counts: they share their videos.
    """
    each = seeding(suite).prompt
    place = {p: i for i, p in reversed(list(enumerate(listed(suite))))} if each else {}
    return {p: each * place.get(p, 0) for p in suite.list_prompts()}


def listed(suite: Suite) -> tuple[str, ...]:
    """The whole list that a suite's prompts are some of, as it orders them."""
    return (suite.listed() if hasattr(suite, "listed") else ()) or suite.list_prompts()


def seeds(setting: int | tuple[int, ...]) -> tuple[int, ...]:
    """A number n means seeds 0 to n − 1; a list is taken as it is.

    >>> seeds(3), seeds((7, 9))
    ((0, 1, 2), (7, 9))
    """
    return tuple(range(setting)) if isinstance(setting, int) else tuple(dict.fromkeys(setting))


def listed_by_hand(prompts: Sequence[str]) -> tuple[str, ...]:
    """The prompts of a list in the configuration.  Raises UserError as `texts.distinct` does."""
    return texts.distinct((Entry(p, f"entry {i}") for i, p in enumerate(prompts, 1)), "suite.prompts")


# -- prompts that a language model wrote out


@lru_cache(maxsize=4)
def extensions(path: Path, prompts: tuple[str, ...]) -> dict[str, str]:
    """What a file gives the model for each prompt, by the prompt.

    path: JSON {original: extended}, as `srbench prompts` writes it, or text with line i for
    prompts[i].  Raises UserError for any other file.
    """
    named = f"suite.extended = {path}"
    content = texts.read(path, named)
    if path.suffix.lower() == ".json":
        table = texts.parse_json(content, named)
    else:
        table = _by_line(path, texts.lines(content), prompts)
    if not isinstance(table, dict) or not all(isinstance(t, str) for t in table.values()):
        raise UserError(named, "JSON {original: extended}", "as `srbench prompts` writes it")
    for prompt, text in table.items():
        if text.strip() and (wrong := texts.flaw(text)):  # an empty one is missing
            raise UserError(f"{named}, of {prompt!r}: {wrong}", "a text", "correct it")
    return table


def _by_line(path: Path, lines: list[str], prompts: tuple[str, ...]) -> dict[str, str]:
    if len(lines) != len(prompts):
        raise UserError(
            f"suite.extended = {path} of {len(lines)} lines",
            f"{len(prompts)}, line i for prompt i of the list",
            "or JSON {original: extended}",
        )
    # of two entries with one prompt the first counts: they share their videos
    return dict(reversed(list(zip(prompts, lines, strict=True))))


def extended(path: str, listed: tuple[str, ...], prompt: str) -> str:
    """One prompt's extension.  Raises UserError where the file has none.

    listed: the whole list that a file of lines goes by.
    """
    table = extensions(Path(path), listed)
    if not table.get(prompt, "").strip():
        raise UserError(
            f"suite.extended = {path} without {prompt!r}",
            "an extension of every prompt",
            f"{len(listed)} lines in the list's order, or JSON {{original: extended}}; "
            "`srbench prompts` goes on where it stopped",
        )
    return table[prompt]


def extended_variant(path: str, listed: tuple[str, ...]) -> str:
    """Hash over all that a file of extensions says."""
    table = sorted(extensions(Path(path), listed).items())
    return hashlib.sha256(json.dumps(table, ensure_ascii=False).encode()).hexdigest()[:12]


def lacking(path: str, listed: tuple[str, ...], prompts: Sequence[str]) -> list[UserError]:
    """What keeps a file from extending these prompts; the first of those that it lacks, and how many."""
    found = []
    for prompt in prompts:
        try:
            extended(path, listed, prompt)
        except UserError as error:
            found.append(error)
    if len({e.got for e in found}) > 1:
        first = found[0]
        return [UserError(f"{first.got} and {len(found) - 1} more", first.expected, first.do)]
    return found[:1]
