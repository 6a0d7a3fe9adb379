"""What an accelerator is, and how it reports what it computed and what it reused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from srbench.config.experiment import Role

if TYPE_CHECKING:
    from torch import nn


@dataclass
class Attachment:
    """The ground an attached accelerator stands on, and its tally of the current step.

    role: which model of the family.  steps: of the whole schedule.  calls_per_step: 2 with
    classifier-free guidance.  polynomials: TeaCache's, by mode, for this model.
    step, timestep: of the step under way.  step: its place in the whole schedule, from 0, whenever the
    accelerator was attached.
    """

    role: Role
    steps: int
    calls_per_step: int
    polynomials: Mapping[str, Sequence[float]] = field(default_factory=dict)
    step: int = 0
    timestep: float = 0.0
    calls_reused: int = 0
    modules_computed: int = 0
    modules_reused: int = 0

    def begin_step(self, step: int, timestep: float) -> None:
        self.step, self.timestep = step, timestep
        self.calls_reused = self.modules_computed = self.modules_reused = 0

    def tally_call(self, *, reused: bool) -> None:
        """A whole model evaluation was replaced by a cached one."""
        self.calls_reused += reused

    def tally_module(self, *, reused: bool) -> None:
        """A module inside the model was computed, or its cached output used."""
        self.modules_reused += reused
        self.modules_computed += not reused


class Accelerator(Protocol):
    """Settings of an accelerator; `attach` does the work.

    It may have EXCLUDES, a mapping from kinds that cannot be attached beside it to the reason.
    COMPUTES_IN_FULL = True says that a step in which it reuses nothing is a step of the model
    alone, so that their times are one class.
    """

    kind: str

    def attach(self, model: nn.Module, attachment: Attachment) -> AbstractContextManager[None]:
        """Attach with empty caches; on leaving, the model is as it was before."""
        ...

    def inert_steps(self, timesteps: Sequence[float], calls_per_step: int, at_most: int) -> int:
        """After how many steps, at most `at_most`, it may be attached without changing a bit."""
        ...

    def expects_reuse(self, timesteps: Sequence[float]) -> bool:
        """Whether having reused nothing over these steps can only be a fault."""
        ...
