"""States that earlier runs left, so that a new δ does not redo a trunk.

One object holds what was kept of one segment: its states, by step, and the trace up to its
end.  Its key is the unit and the path's denoisers up to that segment.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from safetensors import safe_open
from safetensors.torch import save_file

from srbench.experiment import digest
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

    trunk: every state of segments that begin the path.  forks: of every plain segment the
    states at which a method left it.  A segment with an accelerator cannot be taken up in
    its middle, since its caches are no part of the state; it keeps nothing.
    A state depends on the weights of the models on its path, and on no others.
    """

    def __init__(self, store: Store, sampler: Sampler, unit: Any, keep: Keep) -> None:
        self.store, self.sampler, self.unit, self.policy = store, sampler, unit, keep

    def _key(self, entry: Branch) -> str:
        path = [s.denoiser for s in entry.trace.steps]
        steps = len(entry.state.scheduler.timesteps)
        roles = {s.model for s in entry.trace.steps} | {entry.denoiser.model}
        weights = self.sampler.weights_identity(sorted(roles))
        return digest(["states", self.unit, weights, steps, path, entry.denoiser.id], 64)

    def recall(self, entry: Branch) -> Known | None:
        path = None if entry.denoiser.accelerators else self.store.get(self._key(entry))
        return None if path is None else self._read(path)

    def _read(self, path: Path) -> Known:
        with safe_open(path, "pt") as file:
            meta = file.metadata()
        states: dict[str, dict[str, str]] = json.loads(meta["states"])

        def load(index: int) -> State:
            prefix = f"{index}/"
            with safe_open(path, "pt", device=str(self.sampler.device)) as file:
                names = [n for n in file.keys() if n.startswith(prefix)]
                tensors = {n.removeprefix(prefix): file.get_tensor(n) for n in names}
            return self.sampler.thaw(tensors, states[str(index)])

        steps = tuple(Step(**s) for s in json.loads(meta["trace"]))
        return Known(Trace(steps), tuple(sorted(map(int, states))), load)

    def keep(self, entry: Branch, walked: Sequence[Branch], forked: Sequence[int]) -> None:
        chosen = [b for b in walked if self._wanted(entry, b, forked)]
        if not chosen:
            return
        known = self.recall(entry)
        kept = {b.state.index: b.state for b in chosen}
        if known is not None:
            kept = {i: known.load(i) for i in known.indices} | kept
        tensors: dict[str, Any] = {}
        states: dict[str, dict[str, str]] = {}
        for index, state in kept.items():
            frozen, states[str(index)] = self.sampler.freeze(state)
            tensors |= {f"{index}/{name}": tensor.cpu() for name, tensor in frozen.items()}
        traces = [walked[-1].trace, *([known.trace] if known else [])]
        longest = max(traces, key=len)
        meta = {"trace": json.dumps([asdict(s) for s in longest.steps]), "states": json.dumps(states)}
        self.store.put(self._key(entry), ".safetensors", lambda p: save_file(tensors, p, meta))

    def _wanted(self, entry: Branch, branch: Branch, forked: Sequence[int]) -> bool:
        if self.policy == "none" or entry.denoiser.accelerators:
            return False
        begins = not entry.trace.steps
        return (self.policy == "trunk" and begins) or branch.state.index in forked
