"""Methods of one (prompt, seed) walk together until they part.

All of them start from the same noise.  Those whose denoiser is the same are one branch,
computed once; after each step every method's rule is asked, and those that leave fork
off with the state, which is a value.  Nothing is planned: the tree finds itself, and each
distinct (denoiser, state, step) is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from srbench.config.experiment import Denoiser, Method, Sampling
from srbench.errors import UserError
from srbench.families._clock import begin_peak, peak_bytes, timed
from srbench.families.base import Sampler, State, Text
from srbench.sampling.memory import FORGETFUL, Known, Memory
from srbench.trace import Trace


@dataclass(frozen=True)
class Traveller:
    """A method on its way: in which segment, entered after how many steps."""

    method: Method
    segment: int = 0
    entered: int = 0

    @property
    def denoiser(self) -> Denoiser:
        return self.method.segments[self.segment].denoiser

    def leaves(self, trace: Trace) -> bool:
        last = self.segment == len(self.method.segments) - 1
        return not last and self.method.segments[self.segment].until.fires(trace, self.entered)

    def move_on(self, executed: int) -> Traveller:
        # attached late, the second segment is the first one still
        entered = 0 if self.method.attached_late and self.segment == 0 else executed
        return replace(self, segment=self.segment + 1, entered=entered)


@dataclass(frozen=True)
class Branch:
    """Travellers with one denoiser and one state, and how they came to it.

    seconds: device-synchronised, one a step; None for a step that an earlier run did.
    hand_overs: seconds of each.  shared: how
    many of the steps were computed for more than one method.  peak: bytes, the most that was
    held on the device during its own steps and those it shares, models that wait there included.
    path: the name of the denoiser of each step.
    """

    denoiser: Denoiser
    state: State
    travellers: tuple[Traveller, ...]
    trace: Trace = field(default_factory=Trace)
    seconds: tuple[float | None, ...] = ()
    hand_overs: tuple[float, ...] = ()
    shared: int = 0
    peak: int = 0
    path: tuple[str, ...] = ()


@dataclass(frozen=True)
class Arrival:
    """A finished branch: its last state, and the methods whose video it is."""

    branch: Branch
    methods: tuple[Method, ...]


@dataclass(frozen=True)
class Failure:
    """Methods that did not arrive, and why."""

    methods: tuple[Method, ...]
    error: Exception


OnStep = Callable[[Branch], None]
# Pure noise at the beginning of a schedule of so many steps, by the family's sampler or a method's own.
Start = Callable[[int | None, Sampling | None], State]


def roots(sampler: Sampler, methods: Sequence[Method], start: Start) -> list[Branch]:
    """The first branches: methods by their sampler, number of steps and first denoiser."""
    states = {(m.steps, m.sampler): start(m.steps, m.sampler) for m in methods}
    # not by m.steps: a family's own number of steps may also be given by hand
    lengths = {asked: len(state.scheduler.timesteps) for asked, state in states.items()}
    grouped: dict[tuple[int, Sampling | None, Denoiser], list[Traveller]] = {}
    for method in methods:
        traveller = Traveller(method)
        key = lengths[method.steps, method.sampler], method.sampler, traveller.denoiser
        grouped.setdefault(key, []).append(traveller)
    return [
        Branch(d, take_over(sampler, states[ts[0].method.steps, own], d), tuple(ts))
        for (_, own, d), ts in grouped.items()
    ]


def walk(
    sampler: Sampler,
    text: Callable[[Denoiser], Text],
    methods: Sequence[Method],
    start: Start,
    on_step: OnStep = lambda branch: None,
    memory: Memory = FORGETFUL,
) -> Iterator[Arrival | Failure]:
    """Run every method to its end, each distinct step once, one whole segment after another.

    Yields an Arrival for every distinct video, or a Failure for a branch that raised; the
    other branches go on.  Forks wait until the segment they left has ended; of those that
    wait, one with the active denoiser is next, else the one that has waited longest.  So
    one accelerated model is active at a time, and models swap as seldom as methods
    alternate.
    """
    waiting, active = roots(sampler, methods, start), None
    while waiting:
        branch = next((b for b in waiting if b.denoiser == active), waiting[0])
        waiting.remove(branch)
        active = branch.denoiser
        ended, forks, error = run_segment(sampler, text(active), branch, on_step, memory)
        waiting += forks
        yield from outcome(ended, error)


def outcome(ended: Branch, error: Exception | None) -> list[Arrival | Failure]:
    """What became of the travellers that `run_segment` left in a branch; nothing if none is left."""
    methods = tuple(t.method for t in ended.travellers)
    if error is not None:
        return [Failure(methods, error)]
    return [Arrival(ended, methods)] if methods else []


def run_segment(
    sampler: Sampler, text: Text, branch: Branch, on_step: OnStep, memory: Memory = FORGETFUL
) -> tuple[Branch, list[Branch], Exception | None]:
    """Step a branch until its last traveller leaves or the schedule ends.

    Returns the branch as it ended, with the travellers that arrived; the forks; and what
    it failed with, which concerns the travellers still in it and no fork.  The
    accelerators stay attached throughout: their caches belong to the segment.
    """
    entry, forks = branch, list[Branch]()
    begin_peak(sampler.device)
    known, notes = memory.recall(entry), memory.begin(entry)
    try:
        with sampler.attach(branch.denoiser, len(branch.state.scheduler.timesteps)):
            while branch.travellers and not branch.state.done:
                ahead = take_up(branch, known)
                branch = ahead or step(sampler, text, branch)
                if ahead is None:
                    on_step(branch)
                stepped, left = branch, list[Branch]()
                if not branch.state.done:
                    branch, left = part(sampler, branch)
                    forks += left
                if ahead is None:
                    notes.note(stepped, bool(left))
        notes.write(branch.trace)
        if branch.travellers:
            _refuse_idle(branch, len(entry.trace))
    except Exception as error:
        return branch, forks, error
    return branch, forks, None


def take_up(branch: Branch, known: Known | None) -> Branch | None:
    """The branch as far ahead as an earlier run's states allow; None if that is nowhere.

    Not past the step at which a traveller leaves: the rules are replayed on the trace.
    """
    if known is None:
        return None
    now = len(branch.trace)
    limit = min(first_leave(t, known.trace, now) for t in branch.travellers)
    reachable = sorted((i for i in known.indices if now < i <= limit), reverse=True)
    loaded = ((i, known.load(i)) for i in reachable)  # one at a time: the first sound one is taken
    at, state = next(((i, s) for i, s in loaded if s is not None), (now, None))
    if state is None:
        return None
    return replace(
        branch,
        state=state,
        trace=known.trace.until(at),
        seconds=(*branch.seconds, *[None] * (at - now)),
        shared=branch.shared + (at - now) * (len(branch.travellers) > 1),
        path=(*branch.path, *[branch.denoiser.digest] * (at - now)),
    )


def first_leave(traveller: Traveller, trace: Trace, now: int) -> int:
    """After how many steps a traveller would leave; the trace's length if never in it."""
    executed = range(now + 1, len(trace))
    return next((i for i in executed if traveller.leaves(trace.until(i))), len(trace))


def step(sampler: Sampler, text: Text, branch: Branch) -> Branch:
    """One step of a branch, timed.  Raises FloatingPointError where it is not finite."""
    denoiser = branch.denoiser
    sampler.model(denoiser.model, denoiser.dtype, denoiser.weights)  # on the device before the clock starts
    with timed(sampler.device) as seconds:
        state, record = sampler.step(denoiser, branch.state, text)
    if not bool(state.latents.isfinite().all()):
        raise FloatingPointError(f"latents are not finite after step {state.index} ({denoiser.name})")
    return replace(
        branch,
        state=state,
        trace=branch.trace.then(record),
        seconds=(*branch.seconds, seconds.value),
        shared=branch.shared + (len(branch.travellers) > 1),
        peak=max(branch.peak, peak_bytes(sampler.device)),
        path=(*branch.path, denoiser.digest),
    )


def part(sampler: Sampler, branch: Branch) -> tuple[Branch, list[Branch]]:
    """Ask every traveller's rule; those that leave fork off, by their next denoiser.

    One whose next segment has the same denoiser stays, its caches untouched.
    """
    executed, staying = len(branch.trace), []
    leaving: dict[Denoiser, list[Traveller]] = {}
    for traveller in branch.travellers:
        if not traveller.leaves(branch.trace):
            staying.append(traveller)
            continue
        moved = traveller.move_on(executed)
        if moved.denoiser == branch.denoiser:
            staying.append(moved)
        else:
            leaving.setdefault(moved.denoiser, []).append(moved)
    forks = []
    for denoiser, travellers in leaving.items():
        with timed(sampler.device) as seconds:
            state = take_over(sampler, branch.state, denoiser)
        forks.append(
            replace(
                branch,
                denoiser=denoiser,
                state=state,
                travellers=tuple(travellers),
                hand_overs=(*branch.hand_overs, seconds.value),
            )
        )
    return replace(branch, travellers=tuple(staying)), forks


def take_over(sampler: Sampler, state: State, new: Denoiser) -> State:
    """The state as the next denoiser gets it: handed over, then disturbed if it asks for that."""
    state = sampler.hand_over(state, new)
    if new.disturb is None:
        return state
    # drawn on the CPU, so that a device does not change the experiment
    generator = torch.Generator().manual_seed(new.disturb.seed)
    noise = new.disturb.bias + new.disturb.scale * torch.randn(state.latents.shape, generator=generator)
    return sampler.disturb(state, noise)


def _refuse_idle(branch: Branch, began: int) -> None:
    """An accelerator that was attached and reused nothing is a fault, not a slow method."""
    steps = branch.trace.steps[began:]
    reused = any(s.calls_reused or s.modules_reused for s in steps)
    expected = [a.kind for a in branch.denoiser.accelerators if a.expects_reuse([s.timestep for s in steps])]
    if expected and not reused:
        raise UserError(
            f"{branch.denoiser.name} reused nothing in {len(steps)} steps",
            "an accelerator that accelerates",
            "raise its threshold or widen its range, or leave it out",
        )
