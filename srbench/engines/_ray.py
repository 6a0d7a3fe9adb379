"""Ray's actors as a crew: states stay in Ray's object store, the first process sees their names."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from srbench.engines._parcel import PackedExperiment, Parcel
from srbench.engines._schedule import Dead, Fork, Lost, Report, Task
from srbench.errors import UserError

if TYPE_CHECKING:
    from srbench.planning.plan import Unit
    from srbench.runtime.runner import Event
    from srbench.sampling.walk import Branch


class RayCrew:
    """Actors of one class, all made with the same arguments.

    They are neither restarted nor their tasks retried by Ray: an actor that waits for a machine
    that is gone would keep its task while others are idle.  `Schedule` hires another instead,
    and whoever is free first does the task.
    """

    def __init__(self, cls: type, arguments: Sequence[Any], cpus: float, gpus: float) -> None:
        self._make: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)(cls)
        self._arguments = arguments
        self._workers: dict[Any, None] = {}

    def hire(self) -> Any:
        worker = self._make.remote(*self._arguments)
        self._workers[worker] = None
        return worker

    def dismiss(self, worker: Any) -> None:
        self._workers.pop(worker, None)
        ray.kill(worker)

    def close(self) -> None:
        """Dismiss everyone: a Ray that others started lives on."""
        for worker in list(self._workers):
            self.dismiss(worker)

    def start(self, worker: Any, task: Task) -> Any:
        unit = task.begun.unit if task.begun else None
        # a generator of a report and the forks' states, each an object of Ray's owned here
        return worker.do.remote(task.kind, unit, task.prompts, task.state)

    def ready(self, jobs: Collection[Any]) -> Sequence[Any]:
        asked = list(jobs)
        ray.wait(asked, num_returns=1, fetch_local=False)
        return ray.wait(asked, num_returns=len(asked), timeout=0, fetch_local=False)[0]

    def collect(self, job: Any) -> tuple[Report, Sequence[Any]]:
        try:
            report = ray.get(next(job))
            return report, [next(job) for _ in report.forks]
        except RayTaskError as error:  # first: of a state that is lost it is also the loss's kind
            if isinstance(error.cause, UserError):
                raise error.cause from None
            if isinstance(error, RayActorError) or isinstance(error.cause, RayError):
                raise Lost(str(error.cause)) from None
            raise
        except (RayActorError, StopIteration) as error:
            raise Dead(str(error)) from None
        except RayError as error:
            raise Lost(str(error)) from None


class Worker:
    """An actor: a Runner, its models loaded once.

    place: the working folder of the first process, which relative paths of weights start from.
    protocol: the first process's.  job: as Runner has it.
    """

    def __init__(
        self,
        packed: PackedExperiment,
        run: Path,
        store: Path,
        threads: int,
        place: Path,
        protocol: str,
        job: str,
    ) -> None:
        # nothing that can fail: what `begin` raises is told as it is, this would be a dead actor
        self._asked = packed, run, store, threads, place, protocol, job

    def do(self, kind: str, unit: Unit, prompts: Sequence[str], parcel: Parcel | None) -> Iterator[Any]:
        """One task: a Report, then the state of each of its forks."""
        report, parcels = getattr(self, kind)(unit, prompts, parcel)
        yield report
        for fork in parcels:  # noqa: UP028 - Ray sends to its generators, and a list takes nothing
            yield fork

    def begin(self, *_: Any) -> tuple[Report, list[Parcel]]:
        from srbench.runtime.runner import Runner
        from srbench.store.objects import Store

        packed, run, store, threads, place, protocol, job = self._asked
        if place.is_dir():
            os.chdir(place)
        self.runner = Runner(packed.open(), run, Store(store), threads, job)
        if self.runner.protocol != protocol:
            here = ", ".join(f"{k} {v}" for k, v in self.runner.ground.items())
            raise UserError(
                f"a worker whose protocol is {self.runner.protocol} ({here})",
                f"{protocol}, that of the process that the command runs in",
                "give all machines the same packages, weights and kind of device, the first one too",
            )
        return Report(), []

    def encode(self, unit: Unit, prompts: Sequence[str], _: Any) -> tuple[Report, list[Parcel]]:
        self.runner.encode(prompts)
        return Report(), []

    def roots(self, unit: Unit, *_: Any) -> tuple[Report, list[Parcel]]:
        return self._forks([], self.runner.roots(unit))

    def segment(self, unit: Unit, _: Any, parcel: Parcel) -> tuple[Report, list[Parcel]]:
        events: list[Event] = []
        forks = self.runner.segment(unit, parcel.open(self.runner.sampler), events.append)
        return self._forks(events, forks)

    def finish(self, unit: Unit, *_: Any) -> tuple[Report, list[Parcel]]:
        """Whatever is still missing of a unit, and its scores."""
        events: list[Event] = []
        self.runner.unit(unit, events.append)
        return Report(tuple(events)), []

    def _forks(self, events: Sequence[Event], branches: Sequence[Branch]) -> tuple[Report, list[Parcel]]:
        forks = tuple(Fork(b.denoiser.model, b.denoiser.id) for b in branches)
        return Report(tuple(events), forks), [Parcel.of(b, self.runner.sampler) for b in branches]
