"""States that earlier runs left, so that a new δ does not redo a trunk.

A segment leaves its trace, one object, and one object for each state that is kept; their
keys are the unit, the denoisers of the path up to there, and for a state the step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from safetensors import safe_open
from safetensors.torch import save_file

from srbench.errors import CannotWrite
from srbench.experiment import kept_steps
from srbench.families.base import Sampler, State
from srbench.paths import state_key, trace_key
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


class Memory(Protocol):
    """Where a walk looks for states, and where it leaves them."""

    def recall(self, entry: Branch) -> Known | None:
        """What is known of the segment that `entry` is about to walk."""
        ...

    def keep(self, entry: Branch, walked: Sequence[Branch], forked: Sequence[int]) -> None:
        """Keep states of a segment: `walked` after each step, `forked` where a method left."""
        ...


class Forgetful:
    """Keeps nothing and knows nothing."""

    def recall(self, entry: Branch) -> Known | None:
        return None

    def keep(self, entry: Branch, walked: Sequence[Branch], forked: Sequence[int]) -> None:
        return None


FORGETFUL = Forgetful()


class StoredMemory:
    """Keeps states in the store.

    policy: `none`; `forks`, of every plain segment the states at which a method left it;
    `window(a,b)`, also those after a to b steps of segments that begin the path; `all`,
    every one of those.  A segment with an accelerator cannot be taken up in its middle,
    since its caches are no part of the state; it keeps nothing.
    """

    def __init__(self, store: Store, sampler: Sampler, unit: Any, policy: str) -> None:
        self.store, self.sampler, self.unit, self.policy = store, sampler, unit, policy
        self.first, self.last = kept_steps(policy)

    def _trace_key(self, entry: Branch) -> str:
        return trace_key(self.unit, *self._place(entry))

    def _state_key(self, entry: Branch, index: int) -> str:
        return state_key(self.unit, *self._place(entry), index)

    @staticmethod
    def _place(entry: Branch) -> tuple[int, list[str], str]:
        path = [s.denoiser for s in entry.trace.steps]
        return len(entry.state.scheduler.timesteps), path, entry.denoiser.id

    def recall(self, entry: Branch) -> Known | None:
        trace = None if entry.denoiser.accelerators else self._trace(entry)
        if trace is None:
            return None
        steps = range(len(entry.trace) + 1, len(trace) + 1)
        kept = tuple(i for i in steps if self.store.has(self._state_key(entry, i)))
        return Known(trace, kept, lambda index: self._load(entry, index))

    def _trace(self, entry: Branch) -> Trace | None:
        path = self.store.get(self._trace_key(entry))
        if path is None:
            return None
        return Trace(tuple(Step(**s) for s in json.loads(path.read_text("utf-8"))))

    def _load(self, entry: Branch, index: int) -> State | None:
        path = self.store.get(self._state_key(entry, index))
        if path is None:
            return None
        with safe_open(path, "pt", device=str(self.sampler.device)) as file:
            return self.sampler.thaw({n: file.get_tensor(n) for n in file.keys()}, file.metadata())

    def keep(self, entry: Branch, walked: Sequence[Branch], forked: Sequence[int]) -> None:
        chosen = [b.state for b in walked if self._wanted(entry, b, forked)]
        try:
            for state in chosen:
                self._keep(entry, state)
            # the trace last: it is what makes the states known
            if chosen and len(walked[-1].trace) > len(self._trace(entry) or ()):
                self._write_trace(entry, walked[-1].trace)
        except CannotWrite:
            # a state saves time to come; the video that is about to be written decides
            # whether the disk is really full
            return

    def _keep(self, entry: Branch, state: State) -> None:
        key = self._state_key(entry, state.index)
        if not self.store.has(key):
            tensors, meta = self.sampler.freeze(state)
            tensors = {name: tensor.cpu() for name, tensor in tensors.items()}
            self.store.put(key, STATE, lambda path: save_file(tensors, path, meta))

    def _write_trace(self, entry: Branch, trace: Trace) -> None:
        text = json.dumps([asdict(s) for s in trace.steps])
        self.store.put(self._trace_key(entry), TRACE, lambda path: _write(path, text))

    def _wanted(self, entry: Branch, branch: Branch, forked: Sequence[int]) -> bool:
        if self.policy == "none" or entry.denoiser.accelerators:
            return False
        begins = not entry.trace.steps
        return branch.state.index in forked or (begins and self.first <= branch.state.index <= self.last)


def _write(path: Any, text: str) -> None:
    path.write_text(text, "utf-8")
