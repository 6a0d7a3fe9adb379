"""How many steps the methods of an experiment take, alone and together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from srbench.config.experiment import Denoiser, Experiment, Method, Sampling, kept_steps
from srbench.rules.base import Rule
from srbench.sampling.paths import Assume, walked


@dataclass(frozen=True)
class Steps:
    """Steps counted by what their cost depends on: the model, its guidance, and one batch or two calls."""

    counts: Mapping[Denoiser, int] = field(default_factory=dict)

    @classmethod
    def of(cls, denoisers: Iterable[Denoiser]) -> Steps:
        """Count them.

        >>> steps = Steps.of([Denoiser(model="large"), Denoiser(model="small", guidance_scale=1)])
        >>> steps.large, steps.small
        (1, 1)
        """
        costs = (
            Denoiser(model=d.model, guidance_scale=d.guidance_scale, batch_guidance=d.batch_guidance)
            for d in denoisers
        )
        return cls(dict(Counter(costs)))

    def __add__(self, other: Steps) -> Steps:
        return Steps(dict(Counter(self.counts) + Counter(other.counts)))

    def times(self, n: int) -> Steps:
        """As many steps of each kind, n times."""
        return Steps({d: k * n for d, k in self.counts.items()})

    @property
    def large(self) -> int:
        return sum(self._of("large").values())

    @property
    def small(self) -> int:
        return sum(self._of("small").values())

    def _of(self, model: str) -> Mapping[Denoiser, int]:
        return {d: n for d, n in self.counts.items() if d.model == model}

    def evaluations(self, model: str, family: Any) -> int:
        """Calls of a model."""
        return sum(n * family.calls_per_step(d) for d, n in self._of(model).items())

    def plain(self, model: str, family: Any) -> float:
        """How many of the family's own steps take the same time.

        A step without guidance is half of one with guidance.
        """
        one = family.branches(Denoiser(model="large"))
        return sum(n * family.branches(d) / one for d, n in self._of(model).items())


@dataclass(frozen=True)
class Cost:
    """Steps of one (prompt, seed): every method alone, and walking together.

    states: how many of the states on the way are kept.
    """

    alone: Steps
    shared: Steps
    states: int = 0


# The longest kept beginning of a path that is at most so many steps long.
Kept = Callable[[Method, int], int]


@dataclass
class _Node:
    """A step of one or more methods that have the same past.

    depth: steps done with it.  begins: all of them by its denoiser.  known: an earlier run
    did it, and a state after it or later is kept.
    """

    denoiser: Denoiser | None
    depth: int = 0
    begins: bool = True
    known: bool = False
    children: dict[Denoiser, _Node] = field(default_factory=dict)

    def then(self, denoiser: Denoiser) -> _Node:
        if denoiser not in self.children:
            begins = self.begins and self.denoiser in (None, denoiser)
            self.children[denoiser] = _Node(denoiser, self.depth + 1, begins)
        return self.children[denoiser]

    def all(self) -> Iterable[_Node]:
        """Every node below this one."""
        waiting = list(self.children.values())
        while waiting:
            yield (node := waiting.pop())
            waiting += node.children.values()


def cost(
    experiment: Experiment, methods: Sequence[Method], assume: Assume, kept: Kept = lambda method, steps: 0
) -> Cost:
    """Steps of one (prompt, seed) under an assumption about when adaptive rules fire.

    Together, a step is done once for each node of the paths' prefix tree; the beginnings
    that earlier runs kept are not done again.
    """
    alone: list[Denoiser] = []
    roots: dict[tuple[int, str, Sampling | None], _Node] = {}
    for method in methods:
        timesteps = experiment.family.timesteps(method.steps, method.sampler)
        steps = walked(method, timesteps, assume)
        alone += steps
        root = len(timesteps), method.noise, method.sampler
        node, past = roots.setdefault(root, _Node(None)), list[_Node]()
        for denoiser in steps:
            past.append(node := node.then(denoiser))
        # not past the step where another denoiser takes over: there a state is needed
        for node in past[: kept(method, sum(n.begins for n in past))]:
            node.known = True
    to_do = [n for root in roots.values() for n in root.all() if not n.known]
    shared = Steps.of(n.denoiser for n in to_do if n.denoiser)
    return Cost(Steps.of(alone), shared, sum(_is_kept(n, experiment.keep) for n in to_do))


def _is_kept(node: _Node, keep: str) -> bool:
    """Whether the state after a step is stored: within the window, or where a method leaves."""
    if keep == "none" or node.denoiser is None or node.denoiser.accelerators:
        return False
    first, last = kept_steps(keep)
    return any(d != node.denoiser for d in node.children) or (node.begins and first <= node.depth <= last)


def earliest(rule: Rule, timesteps: Sequence[float]) -> int:
    """Assume that every rule fires as early as it can: the cheapest run."""
    return rule.window(timesteps)[0]


def latest(rule: Rule, timesteps: Sequence[float]) -> int:
    """Assume that an adaptive rule fires after half the steps at most: the dearest run."""
    first, last = rule.window(timesteps)
    return last if last == first else max(first, min(last, len(timesteps) // 2))
