"""What an experiment amounts to, before anything runs: units, cells, model evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from srbench.experiment import Experiment, Method, Role, digest
from srbench.registry import identity


@dataclass(frozen=True)
class Unit:
    """The work that is done together: all methods of one prompt and seed."""

    prompt_index: int
    prompt: str
    seed: int


@dataclass(frozen=True)
class Bounds:
    """Steps that a method does with each model: fewest and most of the large one."""

    large: tuple[int, int]
    small: tuple[int, int]


def units(experiment: Experiment, order: Sequence[str] = ()) -> list[Unit]:
    """Prompt by prompt, so that an interrupted run has whole prompts.

    order: the prompts of the run's record, which earlier jobs on it may have begun; a
    prompt's number is its place there.
    """
    prompts = experiment.suite.list_prompts()
    place = {p: i for i, p in enumerate(order or prompts)}
    return [Unit(place[p], p, s) for p in prompts for s in experiment.suite.list_seeds()]


def protocol(experiment: Experiment) -> str:
    """Hash of all that two cells of one column must share; a method's own choices excluded."""
    family = experiment.family
    return digest([family, family.weights_identity()])


def cell_id(experiment: Experiment, method: Method, unit: Unit, ground: dict[str, str]) -> str:
    """Hash over all that determines a video's bytes.

    `ground`: the software, device class and thread count it was computed on.
    """
    family = experiment.family
    return digest(
        [family, family.weights_identity(), method.segments, method.steps, unit.prompt, unit.seed, ground],
        64,
    )


def run_folder(experiment: Experiment, results: Path, run: str | None) -> Path:
    """RUN: named by the protocol unless a name was given, so that one more δ is the same run."""
    return results / experiment.name / (run or protocol(experiment)[:8])


def method_steps(method: Method, steps: int) -> Bounds:
    """How many steps a path spends in each model at least and at most.

    A rule that looks at the run can fire after any step from its earliest on; a fixed one
    fires where it says.
    """
    n = method.steps or steps
    fewest = _steps_by_model(method, n, early=True)
    most = _steps_by_model(method, n, early=False)
    return Bounds(
        (min(fewest["large"], most["large"]), max(fewest["large"], most["large"])),
        (min(fewest["small"], most["small"]), max(fewest["small"], most["small"])),
    )


def _steps_by_model(method: Method, steps: int, *, early: bool) -> dict[Role, int]:
    spent: dict[Role, int] = {"large": 0, "small": 0}
    at = 0
    for segment in method.segments:
        rule = segment.until
        if rule.kind == "fixed_step":
            leave = min(steps, max(at + 1, rule.step))
        elif rule.kind == "always" or segment is method.segments[-1]:
            leave = steps
        elif early:
            leave = min(steps, max(at + 1, getattr(rule, "min_steps", 0) + 1))
        else:
            leave = min(steps, getattr(rule, "max_steps", None) or steps)
        spent[segment.denoiser.model] += max(0, leave - at)
        at = leave
    return spent


def summary(experiment: Experiment) -> list[tuple[str, str]]:
    """The plan in words: (what, how much) lines for the terminal."""
    prompts, seeds = len(experiment.suite.list_prompts()), len(experiment.suite.list_seeds())
    videos = prompts * seeds
    bounds = {m.label: method_steps(m, experiment.family.steps) for m in experiment.methods}
    family = experiment.family
    calls = 2 if experiment.family.guidance_scale > 1 else 1
    lines = [
        (
            "family",
            f"{family.name}, {family.width}×{family.height}, {family.frames} frames",
        ),
        ("prompts × seeds", f"{prompts} × {seeds} = {videos} videos a method"),
        ("methods", f"{len(bounds)}: " + ", ".join(bounds)),
        ("metrics", ", ".join(m.facts.name for m in experiment.metrics) or "none"),
        ("cells", str(videos * len(bounds))),
    ]
    roles: tuple[Role, Role] = ("large", "small")
    for role in roles:
        low = sum(getattr(b, role)[0] for b in bounds.values()) * calls * videos
        high = sum(getattr(b, role)[1] for b in bounds.values()) * calls * videos
        told = f"{low}" if low == high else f"{low} to {high}"
        lines.append((f"{role} model evaluations, unshared", f"{told} (at most; caches skip some)"))
    return lines


def settings(experiment: Experiment) -> dict[str, object]:
    """The whole experiment as plain data, for the record."""
    plain = identity(experiment)
    assert isinstance(plain, dict)
    return plain
