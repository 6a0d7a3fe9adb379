"""What one process hands to another: experiments with plug-ins, and branches of a walk."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from srbench.config import registry

if TYPE_CHECKING:
    from torch import Tensor

    from srbench.config.experiment import Denoiser, Experiment
    from srbench.families.base import Sampler
    from srbench.sampling.walk import Branch


@dataclass(frozen=True)
class PackedExperiment:
    """An experiment for another process of this run, which must load its plug-in files first.

    sources: those files as this process read them; edited meanwhile, or not there on another
    machine, they are the same code under the same key.
    content: pickled, as multiprocessing and Ray send everything; it never comes from a file.
    """

    sources: tuple[registry.Source, ...]
    content: bytes

    @classmethod
    def of(cls, experiment: Experiment) -> PackedExperiment:
        return cls(registry.sources(), pickle.dumps(experiment))

    def open(self) -> Experiment:
        for source in self.sources:
            registry.load_source(source)
        return pickle.loads(self.content)


@dataclass(frozen=True)
class Parcel:
    """A branch whose state is tensors on the CPU and strings, so that it can go anywhere.

    branch: without its state.
    """

    branch: Branch
    tensors: dict[str, Tensor]
    meta: dict[str, str]

    @classmethod
    def of(cls, branch: Branch, sampler: Sampler) -> Parcel:
        tensors, meta = sampler.freeze(branch.state)
        nothing: Any = None
        return cls(replace(branch, state=nothing), {n: t.cpu() for n, t in tensors.items()}, meta)

    @property
    def denoiser(self) -> Denoiser:
        return self.branch.denoiser

    def open(self, sampler: Sampler) -> Branch:
        tensors = {n: t.to(sampler.device) for n, t in self.tensors.items()}
        return replace(self.branch, state=sampler.thaw(tensors, self.meta))
