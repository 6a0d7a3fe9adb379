"""States that earlier runs left, so that a new δ does not redo a trunk.

A segment leaves its trace, one object, and one object for each state that is kept; their
keys are the unit, the denoisers of the path up to there, and for a state the step.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from safetensors import safe_open
from safetensors.torch import save_file

from srbench.config.experiment import Role, kept_steps
from srbench.errors import CannotWrite
from srbench.families.base import Sampler, State
from srbench.sampling.paths import Schedule, schedule, state_key, trace_key
from srbench.store.objects import STATE, TRACE, Store
from srbench.trace import Step, Trace

if TYPE_CHECKING:
    from srbench.sampling.walk import Branch


@dataclass(frozen=True)
class Known:
    """An earlier run of a segment: its trace from step 0 on, and which states it kept.

    load: a state by its step; None where its bytes turn out to be damaged.
    """

    trace: Trace
    indices: tuple[int, ...]
    load: Callable[[int], State | None]


class Notes(Protocol):
    """What is kept of one segment while it is walked."""

    def note(self, branch: Branch, forked: bool) -> None:
        """A computed step is done; `forked` where a method left after it."""
        ...

    def write(self, trace: Trace) -> None:
        """The segment is done; trace: from step 0 to its end."""
        ...


class Memory(Protocol):
    """Where a walk looks for states, and where it leaves them."""

    def recall(self, entry: Branch) -> Known | None:
        """What is known of the segment that `entry` is about to walk."""
        ...

    def begin(self, entry: Branch) -> Notes:
        """Notes of a segment that is about to be walked."""
        ...


class Forgetful:
    """Keeps nothing and knows nothing."""

    def recall(self, entry: Branch) -> Known | None:
        return None

    def begin(self, entry: Branch) -> Notes:
        return self

    def note(self, branch: Branch, forked: bool) -> None:
        return None

    def write(self, trace: Trace) -> None:
        return None


FORGETFUL = Forgetful()


class StoredMemory:
    """Keeps states in the store.

    unit: hash over all that determines a prompt's and seed's bits, methods and weights apart.
    weights: what names the weights of some roles; a state depends on those of its path alone.
    policy: `none`; `forks`, of every plain segment the states at which a method left it;
    `window(a,b)`, also those after a to b steps of segments that begin the path; `all`,
    every one of those.  A segment with an accelerator cannot be taken up in its middle,
    since its caches are no part of the state; it keeps nothing.
    """

    def __init__(
        self,
        store: Store,
        sampler: Sampler,
        unit: str,
        policy: str,
        weights: Callable[[Iterable[Role]], str],
    ) -> None:
        self.store, self.sampler, self.unit, self.policy = store, sampler, unit, policy
        self.weights = weights
        self.first, self.last = kept_steps(policy)

    def trace_key(self, entry: Branch) -> str:
        return trace_key(self.unit, *self._place(entry))

    def state_key(self, entry: Branch, index: int) -> str:
        return state_key(self.unit, *self._place(entry), index)

    def _place(self, entry: Branch) -> tuple[str, Schedule, tuple[str, ...], str]:
        roles: set[Role] = {"small" if s.model == "small" else "large" for s in entry.trace.steps}
        weights = self.weights(roles | {entry.denoiser.model})
        length = len(entry.state.scheduler.timesteps)
        return weights, schedule(length, entry.state.sampler), entry.path, entry.denoiser.digest

    def recall(self, entry: Branch) -> Known | None:
        trace = None if entry.denoiser.accelerators else self.trace(entry)
        if trace is None:
            return None
        steps = range(len(entry.trace) + 1, len(trace) + 1)
        kept = tuple(i for i in steps if self.store.has(self.state_key(entry, i)))
        return Known(trace, kept, lambda index: self._load(entry, index))

    def trace(self, entry: Branch) -> Trace | None:
        """The trace of an earlier walk of this segment, from step 0 on."""
        path = self.store.get(self.trace_key(entry))
        if path is None:
            return None
        return Trace(tuple(Step(**s) for s in json.loads(path.read_text("utf-8"))))

    def _load(self, entry: Branch, index: int) -> State | None:
        path = self.store.get(self.state_key(entry, index))
        if path is None:
            return None
        with safe_open(path, "pt", device=str(self.sampler.device)) as file:
            return self.sampler.thaw({n: file.get_tensor(n) for n in file.keys()}, file.metadata())

    def begin(self, entry: Branch) -> Notes:
        return SegmentNotes(self, entry)

    def wanted(self, entry: Branch, index: int, forked: bool) -> bool:
        """Whether the state after `index` steps of a segment is kept."""
        if self.policy == "none" or entry.denoiser.accelerators:
            return False
        return forked or (not entry.trace.steps and self.first <= index <= self.last)


class SegmentNotes:
    """Stores the states worth keeping as they pass: neither device nor memory holds more than one."""

    def __init__(self, memory: StoredMemory, entry: Branch) -> None:
        self.memory, self.entry, self.kept = memory, entry, False

    def note(self, branch: Branch, forked: bool) -> None:
        if not self.memory.wanted(self.entry, branch.state.index, forked):
            return
        self.kept = True
        store, key = self.memory.store, self.memory.state_key(self.entry, branch.state.index)
        if store.has(key):
            return
        frozen, meta = self.memory.sampler.freeze(branch.state)
        tensors = {name: tensor.cpu() for name, tensor in frozen.items()}
        # a state saves time to come; the video that is about to be written decides
        # whether the disk is really full
        with contextlib.suppress(CannotWrite):
            store.put(key, STATE, lambda path: save_file(tensors, path, meta))

    def write(self, trace: Trace) -> None:
        """The trace last: it is what makes the states known."""
        if not self.kept or len(trace) <= len(self.memory.trace(self.entry) or ()):
            return
        text = json.dumps([asdict(s) for s in trace.steps])
        with contextlib.suppress(CannotWrite):
            key, store = self.memory.trace_key(self.entry), self.memory.store
            store.put(key, TRACE, functools.partial(_write, text), replace=True)


def _write(text: str, path: Path) -> None:
    path.write_text(text, "utf-8")
