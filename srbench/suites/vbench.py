"""VBench's prompts, read where VBench is installed or from a file of its repository; never copied in."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import Field

from srbench.config.registry import plugin
from srbench.errors import UserError, did_you_mean
from srbench.suites import base
from srbench.suites.base import Seeding, Seeds

INFO = "VBench_full_info.json"
ENTRIES, UNIQUE = 946, 944
DIMENSIONS = (
    "subject_consistency",
    "background_consistency",
    "temporal_flickering",
    "motion_smoothness",
    "dynamic_degree",
    "aesthetic_quality",
    "imaging_quality",
    "object_class",
    "multiple_objects",
    "human_action",
    "color",
    "spatial_relationship",
    "scene",
    "appearance_style",
    "temporal_style",
    "overall_consistency",
)
_GET = (
    "for a trial set suite=shapes, which needs no list; `srbench vbench setup` installs the list "
    f"with VBench's own environment; or set suite.info to a {INFO} of VBench's repository"
)


def cache() -> Path:
    """The user's cache folder for VBench; XDG_CACHE_HOME moves it."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home.expanduser() / "srbench" / "vbench"


def environment() -> Path:
    """VBench's own environment's folder; SRBENCH_VBENCH_ENV names one made by other means."""
    return Path(os.environ.get("SRBENCH_VBENCH_ENV") or cache() / "env").expanduser()


def official_info() -> Path | None:
    """The list in VBench's own environment; None without that."""
    return next(environment().glob(f"lib/python*/site-packages/vbench/{INFO}"), None)


@dataclass(frozen=True)
class Entry:
    """One line of VBench's list: a prompt and the dimensions that it is made for."""

    prompt: str
    dimensions: tuple[str, ...]


@plugin
class VBench:
    """VBench's standard prompts: 946 entries, 944 different ones, 4,720 videos at 5 seeds.

    info: its `VBench_full_info.json`; None looks in an installed `vbench`, here or in its own
    environment.  dimensions: only prompts made for these.  subset: this many, spread evenly over the
    dimensions; `prompts` is another name for it, as in the other suites.
    extended: prompts as a language model wrote them out, which the model is given instead: a
    text file, line i for entry i, or a JSON file {original: extended}.  Videos keep the
    original's name.
    seeding: of the noise, by a prompt's place among the 946 entries, also of a subset.
    """

    info: str | None = None
    dimensions: tuple[str, ...] | None = None
    subset: Annotated[int, Field(ge=1, le=UNIQUE)] | None = None
    prompts: Annotated[int, Field(ge=1, le=UNIQUE)] | None = field(default=None, metadata={"if_set": True})
    extended: str | None = None
    seeds: Seeds = 5
    seeding: Seeding | None = field(default=None, metadata={"if_set": True})

    def __post_init__(self) -> None:
        if self.prompts is not None:
            if self.subset not in (None, self.prompts):
                got = f"suite.prompts = {self.prompts} with suite.subset = {self.subset}"
                raise UserError(got, "one of them: both say how many prompts", "leave one out")
            object.__setattr__(self, "subset", self.prompts)
            object.__setattr__(self, "prompts", None)
        for name in self.dimensions or ():
            if name not in DIMENSIONS:
                raise UserError(
                    f"suite.dimensions: {name!r}", "a dimension of VBench", did_you_mean(name, DIMENSIONS)
                )

    @property
    def _path(self) -> Path | None:
        if self.info is not None:
            return Path(self.info)
        spec = importlib.util.find_spec("vbench")  # does not run it: it would want torch 2.5
        places = spec.submodule_search_locations if spec else None
        beside = (Path(where) / INFO for where in places or ())
        return next((p for p in beside if p.exists()), None) or official_info()

    def mistakes(self) -> list[UserError]:
        """A list that is not here, or that is not VBench's; asked before a run, not before a plan."""
        try:
            if not self._entries():
                return [UserError("suite vbench without VBench's list", "946 entries", _GET)]
            if self.extended is None:
                return []
            return base.lacking(self.extended, self.listed(), self.list_prompts())
        except UserError as error:
            return [error]

    def _entries(self) -> tuple[Entry, ...]:
        return _read(self._path) if self._path else ()

    def list_prompts(self) -> tuple[str, ...]:
        """Different prompts in the list's order; where there is no list, as many placeholders."""
        entries = self._entries()
        if not entries:
            return tuple(f"<VBench prompt {i}>" for i in range(self.subset or UNIQUE))
        wanted = set(self.dimensions or DIMENSIONS)
        asked = {e.prompt for e in entries if wanted & set(e.dimensions)}
        chosen = asked if self.subset is None else _spread(entries, wanted, self.subset)
        return tuple(p for p in dict.fromkeys(e.prompt for e in entries) if p in chosen)

    def list_seeds(self) -> tuple[int, ...]:
        return base.seeds(self.seeds)

    def text(self, prompt: str) -> str:
        """What the model is given for a prompt: its extension, where there is one."""
        if self.extended is None or not (listed := self.listed()):
            return prompt
        return base.extended(self.extended, listed, prompt)

    def variant(self) -> str:
        if self.extended is None or not (listed := self.listed()):
            return ""
        return base.extended_variant(self.extended, listed)

    def listed(self) -> tuple[str, ...]:
        """The prompts of all entries, which a file of lines goes by; none where there is no list."""
        return tuple(e.prompt for e in self._entries())


def entries(info: Path) -> tuple[Entry, ...]:
    """Every entry of a `VBench_full_info.json`, in its order.  Raises UserError for another file."""
    return _read(info)


@lru_cache(maxsize=4)
def _read(path: Path) -> tuple[Entry, ...]:
    """The list's entries.  Raises UserError for another file."""
    try:
        plain = json.loads(path.read_text("utf-8"))
        return tuple(Entry(e["prompt_en"], tuple(e["dimension"])) for e in plain)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"suite.info = {path} ({type(error).__name__})", f"VBench's {INFO}", _GET) from None


def _spread(entries: tuple[Entry, ...], wanted: set[str], n: int) -> set[str]:
    """N prompts, taken in turn from each dimension's in a fixed random order."""
    order = {d: sorted((e.prompt for e in entries if d in e.dimensions), key=_shuffle) for d in DIMENSIONS}
    queues = [order[d] for d in DIMENSIONS if d in wanted]
    chosen: set[str] = set()
    while len(chosen) < n and any(queues):
        for queue in queues:
            while queue and queue[0] in chosen:
                queue.pop(0)
            if queue and len(chosen) < n:
                chosen.add(queue.pop(0))
    return chosen


def _shuffle(prompt: str) -> str:
    return hashlib.sha256(b"vbench " + prompt.encode()).hexdigest()
