"""What an experiment will cost, told before a model is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from srbench.experiment import Denoiser, Experiment, Method
from srbench.metrics.base import all_facts
from srbench.paths import Assume, late_attach, walked
from srbench.rules.base import Rule


@dataclass(frozen=True)
class Steps:
    """Steps by model."""

    large: int
    small: int

    @classmethod
    def of(cls, denoisers: Iterable[Denoiser]) -> Steps:
        """Count them.

        >>> Steps.of([Denoiser(model="large"), Denoiser(model="small")])
        Steps(large=1, small=1)
        """
        models = [d.model for d in denoisers]
        return cls(models.count("large"), models.count("small"))


@dataclass(frozen=True)
class Cost:
    """Steps of one (prompt, seed): every method alone, and walking together."""

    alone: Steps
    shared: Steps


def cost(experiment: Experiment, methods: Sequence[Method], assume: Assume) -> Cost:
    """Steps of one (prompt, seed) under an assumption about when adaptive rules fire.

    Together, a step is done once for each node of the paths' prefix tree.
    """
    alone: list[Denoiser] = []
    tree: dict[tuple[object, ...], Denoiser] = {}
    for method in methods:
        timesteps = experiment.family.timesteps(method.steps)
        steps = walked(method, timesteps, assume)
        alone += steps
        for i in range(len(steps)):
            tree[(method.steps, *steps[: i + 1])] = steps[i]
    return Cost(Steps.of(alone), Steps.of(tree.values()))


def earliest(rule: Rule, timesteps: Sequence[float]) -> int:
    """Assume that every rule fires as early as it can: the cheapest run."""
    return rule.window(timesteps)[0]


def latest(rule: Rule, timesteps: Sequence[float]) -> int:
    """Assume that an adaptive rule fires after half the steps at most: the dearest run."""
    first, last = rule.window(timesteps)
    return last if last == first else max(first, min(last, len(timesteps) // 2))


def expected(rule: Rule, timesteps: Sequence[float]) -> int:
    """Assume what the rule itself expects."""
    return rule.expected(timesteps)[0]


def summary(experiment: Experiment) -> list[tuple[str, str]]:
    """The plan in words: (what, how much) lines for the terminal."""
    family, suite = experiment.family, experiment.suite
    prompts, seeds = len(suite.list_prompts()), len(suite.list_seeds())
    videos, calls = prompts * seeds, family.calls_per_step
    methods = list(experiment.methods)
    if experiment.late_attach:
        methods = [late_attach(m, family.timesteps(m.steps), calls) for m in methods]
    low, typical, high = (cost(experiment, methods, a) for a in (earliest, expected, latest))

    def evaluations(model: str) -> str:
        alone = getattr(typical.alone, model) * calls * videos
        shared = getattr(typical.shared, model) * calls * videos
        return f"{shared:,} walking together, {alone:,} each alone ({_times(alone, shared)})"

    return [
        (
            "family",
            f"{family.name}, {family.width}×{family.height}, {family.frames} frames, {family.steps} steps",
        ),
        ("prompts × seeds", f"{prompts} × {seeds} = {videos} videos a method"),
        ("methods", f"{len(methods)}: " + ", ".join(m.label for m in methods)),
        ("metrics", ", ".join(all_facts(experiment.metrics, suite.list_prompts())) or "none"),
        ("cells", f"{videos * len(methods):,}"),
        ("large model evaluations", evaluations("large")),
        ("small model evaluations", evaluations("small")),
        ("assumed switch steps", _assumptions(experiment)),
        *_times_and_sizes(experiment, videos, len(methods), (low, typical, high)),
    ]


def _times(alone: int, shared: int) -> str:
    return f"{alone / shared:.2f}× saved" if shared else "none"


def _assumptions(experiment: Experiment) -> str:
    """The adaptive methods' assumed switch steps, and what they rest on."""
    told = []
    for method in experiment.methods:
        timesteps = experiment.family.timesteps(method.steps)
        for segment in method.segments[:-1]:
            first, last = segment.until.window(timesteps)
            if first != last:
                at, why = segment.until.expected(timesteps)
                told.append(
                    f"{method.label}: {at} ({why}), range {first} to {latest(segment.until, timesteps)}"
                )
    return "\n".join(told) or "none: no adaptive rule"


def _times_and_sizes(
    experiment: Experiment, videos: int, methods: int, costs: tuple[Cost, Cost, Cost]
) -> list[tuple[str, str]]:
    price = experiment.family.price
    if price is None:
        return [("time", "– (the family's YAML has no price)")]
    workers = experiment.engine.workers

    def hours(steps: Steps) -> float:
        one = steps.large * price.large + steps.small * price.small + methods * price.rest
        return one * videos / 3600

    low, typical, high = sorted(hours(c.shared) for c in costs)
    lines = [
        ("time", f"{_duration(typical / workers)} with {workers} worker(s)"),
        ("device hours", f"{typical:.3g} ({low:.3g} to {high:.3g}); each alone {hours(costs[1].alone):.3g}"),
    ]
    if price.memory:
        lines.append(("memory a worker", f"{price.memory / 2**30:.3g} GiB with both models resident"))
    if price.video:
        lines.append(("disk for videos", f"{price.video * videos * methods / 2**30:.3g} GiB"))
    step = f"{price.large:g} s a large step, {price.small:g} s a small one: {price.source}"
    return [*lines, ("reckoned with", f"{step}; caches are not counted as savings")]


def _duration(hours: float) -> str:
    """For a reader.

    >>> _duration(0.05), _duration(3.2)
    ('3 min', '3.2 h')
    """
    return f"{hours:.1f} h" if hours >= 1 else f"{max(1, round(hours * 60))} min"
