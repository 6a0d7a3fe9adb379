"""What plug-ins are tried on: a family at a few steps, and a count of what its model really computes."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from srbench import errors
from srbench.config import registry, yaml_files
from srbench.config.experiment import Denoiser, Method, Segment

if TYPE_CHECKING:
    from torch import nn

    from srbench.families.base import Sampler, Text
    from srbench.sampling.walk import Branch

STEPS = 20
PROMPT = "a red circle moving left on a black background"


class Violation(AssertionError):
    """A rule that is not kept: what was seen."""


@dataclass(frozen=True)
class Subject:
    """A plug-in under test.

    settings: its YAML, kind included.  lab: the family that accelerators and families are
    tried on; loaded when a rule first needs it.
    """

    group: str
    settings: Mapping[str, Any]
    lab: Lab

    def make(self) -> Any:
        return registry.build(self.group, self.settings, self.group)


class Lab:
    """A family at a few steps, one prompt encoded.

    scale: `tiny` for a twin with random weights, which any machine has.
    """

    def __init__(self, family: str, steps: int = STEPS, scale: str = "full") -> None:
        self.family_name, self.steps, self.scale = family, steps, scale

    @functools.cached_property
    def family(self) -> Any:
        settings = family_settings(self.family_name, self.scale) | {"steps": self.steps}
        family = registry.build("families", settings, "family")
        errors.raise_all(family.mistakes())
        return family

    @functools.cached_property
    def sampler(self) -> Sampler:
        import torch

        torch.set_num_threads(1)
        return self.family.open()

    @functools.cached_property
    def text(self) -> Text:
        from srbench.families.base import Text

        encoded = self.sampler.encode([PROMPT, self.family.negative_prompt])
        return Text(encoded[PROMPT].embedding, encoded[self.family.negative_prompt].embedding)

    def walk(self, *methods: Method, seed: int = 0) -> dict[str, Branch]:
        """Where methods arrive, by name.  Raises what a branch failed with."""
        from srbench.sampling.walk import Failure, walk

        ends: dict[str, Branch] = {}
        for end in walk(
            self.sampler,
            lambda denoiser: self.text,
            methods,
            functools.partial(self.sampler.start, seed),
        ):
            if isinstance(end, Failure):
                raise end.error
            ends |= {m.name: end.branch for m in end.methods}
        return ends

    @functools.cached_property
    def plain(self) -> Branch:
        """The large model alone."""
        return self.walk(path("plain", (Denoiser(model="large"), None)))["plain"]


def family_settings(name: str, scale: str) -> dict[str, Any]:
    """A family of conf/family/ on a CPU."""
    return yaml_files.read("family", name) | {"scale": scale, "device": "cpu"}


def path(name: str, *segments: tuple[Denoiser, int | None]) -> Method:
    """A method of (denoiser, until which step)."""
    from srbench.rules.always import Always
    from srbench.rules.fixed_step import FixedStep

    made = (Segment(denoiser=d, until=Always() if k is None else FixedStep(step=k)) for d, k in segments)
    return Method(name=name, label=name, segments=tuple(made))


def same(a: Branch, b: Branch) -> bool:
    """Whether two branches arrived at the same bits."""
    return bool((a.state.latents == b.state.latents).all())


# -- what a model computes, whatever is attached to it


@dataclass
class Computed:
    """How often a model's own code ran.

    evaluations: calls of the model in which one of its blocks ran.  parts: runs by block and by a block's
    parts, as `blocks.3` and `blocks.3.attn1`.
    """

    evaluations: int = 0
    parts: Counter[str] = field(default_factory=Counter)


def _parts(model: nn.Module) -> dict[int, str]:
    """Names of a model's blocks and of their parts, by the modules' ids."""
    from torch import nn

    named: dict[int, str] = {}
    for stack, blocks in model.named_children():
        if isinstance(blocks, nn.ModuleList):
            for i, block in enumerate(blocks):
                named[id(block)] = f"{stack}.{i}"
                named |= {id(part): f"{stack}.{i}.{name}" for name, part in block.named_children()}
    return named


@contextlib.contextmanager
def computed(model: nn.Module) -> Iterator[Computed]:
    """Count what a model computes inside the `with`.

    The classes' own `forward` is counted, which whatever replaces a module's `forward` ends in.
    """
    seen, names, running = Computed(), _parts(model), set[int]()
    blocks = {i for i, name in names.items() if name.count(".") == 1}

    def counting(forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def run(self: Any, *args: Any, **kwargs: Any) -> Any:
            if id(self) in running or (id(self) not in names and self is not model):
                return forward(self, *args, **kwargs)
            before = _runs(seen, names, blocks)
            running.add(id(self))
            try:
                return forward(self, *args, **kwargs)
            finally:
                running.discard(id(self))
                if self is not model:
                    seen.parts[names[id(self)]] += 1
                elif not blocks or _runs(seen, names, blocks) > before:
                    seen.evaluations += 1

        return run

    modules = [model, *(m for m in model.modules() if id(m) in names)]
    classes = {c for m in modules for c in type(m).__mro__ if "forward" in vars(c)}
    own = {c: vars(c)["forward"] for c in classes}
    for cls, forward in own.items():
        cls.forward = counting(forward)  # type: ignore[attr-defined]
    try:
        yield seen
    finally:
        for cls, forward in own.items():
            cls.forward = forward  # type: ignore[attr-defined]


def _runs(seen: Computed, names: Mapping[int, str], blocks: set[int]) -> int:
    return sum(seen.parts[names[i]] for i in blocks)
