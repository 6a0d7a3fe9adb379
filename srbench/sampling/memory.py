"""States that earlier runs left, so that a new δ does not redo a trunk.

One object holds what was kept of one segment: its states, by step, and the trace up to its
end.  Its key is the unit and the path's denoisers up to that segment.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from safetensors import safe_open
from safetensors.torch import save_file

from srbench.experiment import Role, digest
from srbench.families.base import Sampler, State
from srbench.store.objects import Store
from srbench.trace import Step, Trace

if TYPE_CHECKING:
    from srbench.sampling.walk import Branch

Keep = Literal["trunk", "forks", "none"]


@dataclass(frozen=True)
class Known:
    """An earlier run of a segment: its trace from step 0 on, and which states it kept."""

    trace: Trace
    indices: tuple[int, ...]
    load: Callable[[int], State]


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
        """Start keeping states of the segment that `entry` is about to walk."""
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
Frozen = tuple[dict[str, Any], dict[str, str]]


class StoredMemory:
    """Keeps states in the store.

    trunk: every state of segments that begin the path.  forks: of every plain segment the
    states at which a method left it.  A segment with an accelerator cannot be taken up in
    its middle, since its caches are no part of the state; it keeps nothing.
    weights: what names the weights of some roles; a state depends on those of its path alone.
    """

    def __init__(
        self,
        store: Store,
        sampler: Sampler,
        unit: Any,
        keep: Keep,
        weights: Callable[[set[Role]], Any] = lambda roles: None,
    ) -> None:
        self.store, self.sampler, self.unit, self.policy = store, sampler, unit, keep
        self.weights = weights

    def _key(self, entry: Branch) -> str:
        path = [s.denoiser for s in entry.trace.steps]
        steps = len(entry.state.scheduler.timesteps)
        roles: set[Role] = {"small" if s.model == "small" else "large" for s in entry.trace.steps}
        weights = self.weights(roles | {entry.denoiser.model})
        return digest(["states", self.unit, weights, steps, path, entry.denoiser.id], 64)

    def recall(self, entry: Branch) -> Known | None:
        path = None if entry.denoiser.accelerators else self.store.get(self._key(entry))
        return None if path is None else self._read(path)

    def _read(self, path: Path) -> Known:
        steps, states = _contents(path)

        def load(index: int) -> State:
            tensors = _tensors(path, index, str(self.sampler.device))
            return self.sampler.thaw(tensors, states[index])

        return Known(Trace(steps), tuple(sorted(states)), load)

    def begin(self, entry: Branch) -> Notes:
        return SegmentNotes(self, entry)

    def wanted(self, entry: Branch, forked: bool) -> bool:
        if self.policy == "none" or entry.denoiser.accelerators:
            return False
        begins = not entry.trace.steps
        return forked or (self.policy == "trunk" and begins)

    def save(self, entry: Branch, kept: dict[int, Frozen], trace: Trace) -> None:
        """Put frozen states of a segment into the store, with those that are there already."""
        key = self._key(entry)
        path = self.store.get(key)
        if path is not None:
            steps, states = _contents(path)
            kept = {i: (_tensors(path, i, "cpu"), meta) for i, meta in states.items()} | kept
            trace = max(Trace(steps), trace, key=len)
        tensors = {f"{i}/{name}": t for i, (frozen, _) in kept.items() for name, t in frozen.items()}
        meta = {
            "trace": json.dumps([asdict(s) for s in trace.steps]),
            "states": json.dumps({str(i): told for i, (_, told) in kept.items()}),
        }
        self.store.put(key, ".safetensors", lambda p: save_file(tensors, p, meta))


class SegmentNotes:
    """Freezes the states worth keeping as they pass: a device never holds more than one."""

    def __init__(self, memory: StoredMemory, entry: Branch) -> None:
        self.memory, self.entry = memory, entry
        self.kept: dict[int, Frozen] = {}

    def note(self, branch: Branch, forked: bool) -> None:
        if self.memory.wanted(self.entry, forked):
            frozen, meta = self.memory.sampler.freeze(branch.state)
            self.kept[branch.state.index] = {n: t.cpu() for n, t in frozen.items()}, meta

    def write(self, trace: Trace) -> None:
        if self.kept:
            self.memory.save(self.entry, self.kept, trace)


def _contents(path: Path) -> tuple[tuple[Step, ...], dict[int, dict[str, str]]]:
    """A file's trace, and what it says of each of its states."""
    with safe_open(path, "pt") as file:
        meta = file.metadata()
    steps = tuple(Step(**s) for s in json.loads(meta["trace"]))
    return steps, {int(i): told for i, told in json.loads(meta["states"]).items()}


def _tensors(path: Path, index: int, device: str) -> dict[str, Any]:
    prefix = f"{index}/"
    with safe_open(path, "pt", device=device) as file:
        names = [n for n in file.keys() if n.startswith(prefix)]
        return {n.removeprefix(prefix): file.get_tensor(n) for n in names}
