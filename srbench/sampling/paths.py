"""What can be said of a method's path before it is walked; no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from srbench.config.experiment import Denoiser, Method, Sampling, Segment, digest
from srbench.config.registry import lookup
from srbench.rules.base import Rule

# After how many executed steps a rule is taken to fire.
Assume = Callable[[Rule, Sequence[float]], int]


def late_attach(method: Method, timesteps: Sequence[float], calls_per_step: int) -> Method:
    """The same path, its first accelerated segment walked plain for as long as that is exact.

    Every accelerator of the segment says up to which step it changes no bit; until then
    the method can share the plain denoiser's steps.  Rules see no difference.
    """
    first, *rest = method.segments
    # noise is added at every take-over, and here are two of them
    if not first.denoiser.accelerators or first.denoiser.disturb is not None:
        return method
    # the segment's own rule is not asked while the method walks plain
    most = first.until.window(timesteps)[0] - 1
    inert = {a.inert_steps(timesteps, calls_per_step, most) for a in first.denoiser.accelerators}
    # several accelerators, each in its own phase: only where they agree
    if len(inert) > 1 or (at := inert.pop()) < 1:
        return method
    plain = replace(first.denoiser, accelerators=())
    until = lookup("rules", "fixed_step")(step=at)
    segments = (Segment(denoiser=plain, until=until), first, *rest)
    return replace(method, segments=segments, attached_late=True)


def as_walked(method: Method, family: Any) -> Method:
    """The method with its accelerators attached late, as its family's steps allow."""
    calls = family.calls_per_step(method.segments[0].denoiser)
    return late_attach(method, family.timesteps(method.steps, method.sampler), calls)


def walked(method: Method, timesteps: Sequence[float], assume: Assume) -> tuple[Denoiser, ...]:
    """Which denoiser does each step, if the rules fire where they are assumed to."""
    steps: list[Denoiser] = []
    for segment in method.segments:
        last = segment is method.segments[-1]
        leave = len(timesteps) if last else max(len(steps) + 1, assume(segment.until, timesteps))
        steps += [segment.denoiser] * (min(leave, len(timesteps)) - len(steps))
    return tuple(steps)


# What names a whole schedule in keys: its length, and the sampler where it is a method's own.
Schedule = int | tuple[int, Sampling]


def schedule(steps: int, sampler: Sampling | None) -> Schedule:
    """A schedule of so many steps, as keys name it."""
    return steps if sampler is None else (steps, sampler)


def trace_key(unit: str, weights: str, steps: Schedule, path: Sequence[str], denoiser: str) -> str:
    """Under which key the store has a segment's trace.

    unit: all that determines a prompt's and seed's bits, methods and weights apart.  weights:
    of the models of the path.  steps: the whole schedule.  path: the digest of the denoiser of
    every step before the segment.  denoiser: the segment's.
    """
    return digest(["trace", unit, weights, steps, path, denoiser], 64)


def state_key(
    unit: str, weights: str, steps: Schedule, path: Sequence[str], denoiser: str, index: int
) -> str:
    """Under which key the store has a segment's state after `index` steps of the schedule."""
    return digest(["state", unit, weights, steps, path, denoiser, index], 64)
