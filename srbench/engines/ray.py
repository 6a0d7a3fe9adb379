"""Many devices and machines, through Ray: its scheduler, its retries, its object store.

The work is cut where the walk is: a segment of a branch is a task, its state goes from worker
to worker through Ray's object store.  Every worker writes to the same run and store, so both
must lie on a file system that all of them see.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from srbench.engines._parcel import PackedExperiment, Parcel
from srbench.errors import UserError
from srbench.experiment import Role
from srbench.registry import plugin

if TYPE_CHECKING:
    from srbench.experiment import Experiment
    from srbench.plan import Unit
    from srbench.runner import Watch


@plugin
class Ray:
    """workers: actors, each with models of its own; None: one a GPU, or one a core.

    threads: torch threads of each; results depend on the number.  address: of a cluster to
    join, `auto` for the one this machine belongs to; None starts a Ray of our own.
    placement: `together`, any worker does any segment; `split`, a worker does the large
    model's segments or the small one's, so that each device holds one model.
    retries: how often a worker that died is replaced and its task done again.
    """

    workers: Annotated[int, Field(ge=1)] | None = None
    threads: Annotated[int, Field(ge=1)] = 1
    address: str | None = None
    placement: Literal["together", "split"] = "together"
    retries: Annotated[int, Field(ge=0)] = 3

    def mistakes(self) -> list[UserError]:
        """What can be known before anything starts: Ray is an extra."""
        if importlib.util.find_spec("ray") is None:
            return [UserError("engine=ray", "the package ray", "install 'srbench[ray]', or engine=local")]
        if self.placement == "split" and self.workers == 1:
            return [UserError("engine.placement=split with 1 worker", "two or more", "set engine.workers=2")]
        return []

    def run(
        self, experiment: Experiment, units: Sequence[Unit], run: Path, store: Path, watch: Watch
    ) -> None:
        """Run all units; every cell is recorded when it arrives, whatever becomes of the rest."""
        import ray

        started = not ray.is_initialized()
        if started:
            # more workers than cores are allowed, as in a trial on a laptop
            cores = None if self.address else max(self.workers or 1, os.cpu_count() or 1) * self.threads
            ray.init(
                address=self.address,
                num_cpus=cores,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        try:
            actors = self._actors(experiment, run.absolute(), store.absolute(), len(units))
            drive(Pool(actors, self.placement), units, watch)
        except ray.exceptions.RayActorError as error:
            raise UserError(
                f"a worker died more than {self.retries} times ({type(error).__name__})",
                "workers that live; the system may have run out of memory",
                "lower engine.workers; the same command goes on from here",
            ) from None
        finally:
            if started:
                ray.shutdown()

    def _actors(self, experiment: Experiment, run: Path, store: Path, most: int) -> list[Any]:
        import ray

        gpus = ray.cluster_resources().get("GPU", 0)
        count = self.workers or int(gpus or ray.cluster_resources().get("CPU", 1))
        count = max(2 if self.placement == "split" else 1, min(count, most))
        make = ray.remote(
            num_cpus=self.threads,
            num_gpus=min(1.0, gpus / count) if gpus else 0,
            max_restarts=self.retries,
            max_task_retries=self.retries,
        )(Worker)
        packed = PackedExperiment.of(experiment)
        return [make.remote(packed, run, store, self.threads) for _ in range(count)]


class Worker:
    """An actor: a Runner, its models loaded once."""

    def __init__(self, packed: PackedExperiment, run: Path, store: Path, threads: int) -> None:
        from srbench.runner import Runner
        from srbench.store.objects import Store

        self.runner = Runner(packed.open(), run, Store(store), threads)

    def encode(self, prompts: list[str]) -> None:
        self.runner.encode(prompts)

    def roots(self, unit: Unit) -> list[Parcel]:
        return [Parcel.of(b, self.runner.sampler) for b in self.runner.roots(unit)]

    def segment(self, unit: Unit, parcel: Parcel) -> tuple[int, list[Parcel]]:
        """How many steps were computed, and the forks."""
        events: list[Any] = []
        branch = parcel.open(self.runner.sampler)
        forks = self.runner.segment(unit, branch, events.append)
        steps = sum(e.amount for e in events if e.kind == "step")
        return steps, [Parcel.of(f, self.runner.sampler) for f in forks]

    def finish(self, unit: Unit) -> list[Any]:
        """Whatever is still missing of a unit, and its scores."""
        events: list[Any] = []
        self.runner.unit(unit, events.append)
        return events


@dataclass
class Task:
    """Something for a worker: `roots` or `finish` of a unit, or a segment of it."""

    unit: Unit
    kind: Literal["roots", "segment", "finish"]
    parcel: Parcel | None = None

    @property
    def role(self) -> Role:
        """The model that it mainly needs."""
        return self.parcel.denoiser.model if self.parcel else "large"


class Pool:
    """Workers, which of them is free, and what waits."""

    def __init__(self, actors: Sequence[Any], placement: Literal["together", "split"]) -> None:
        self.actors = list(actors)
        self.free = deque(self.actors)
        self.running: dict[Any, tuple[Any, Task]] = {}
        self._last: dict[Any, object] = {}
        # of n workers the smaller half renders: the small model's steps are the shorter ones
        renders = set(self.actors[: len(self.actors) // 2]) if placement == "split" else set()
        self._roles: dict[Any, tuple[Role, ...]] = {
            a: ("large", "small") if placement == "together" else ("small",) if a in renders else ("large",)
            for a in self.actors
        }

    def next_for(self, actor: Any, waiting: list[Task]) -> Task | None:
        """What a free worker does next: of the oldest units, what needs the model it used last."""
        fitting = [t for t in waiting if t.role in self._roles[actor]]
        same = [t for t in fitting if t.parcel and t.parcel.denoiser == self._last.get(actor)]
        return next(iter(same or fitting), None)

    def submit(self, waiting: list[Task]) -> None:
        """Give every free worker a task that it can do."""
        for _ in range(len(self.free)):
            actor = self.free.popleft()
            task = self.next_for(actor, waiting)
            if task is None:
                self.free.append(actor)
                continue
            waiting.remove(task)
            self._last[actor] = task.parcel.denoiser if task.parcel else None
            method = getattr(actor, task.kind)
            ref = method.remote(task.unit, task.parcel) if task.parcel else method.remote(task.unit)
            self.running[ref] = actor, task

    def done(self) -> Iterator[tuple[Task, Any]]:
        """The tasks that are ready, at least one, with their results."""
        import ray

        ready, _ = ray.wait(list(self.running), num_returns=1)
        for ref in ready:
            actor, task = self.running.pop(ref)
            self.free.append(actor)
            yield task, ray.get(ref)


@dataclass
class Open:
    """A unit that was begun: how many of its segments are not done."""

    segments: int = field(default=0)


def drive(pool: Pool, units: Sequence[Unit], watch: Watch) -> None:
    """Keep all workers busy until every unit is finished.

    Segments of begun units come before new units, so an interrupted run has whole prompts.
    """
    import ray

    from srbench.runner import Event

    ray.get(pool.actors[0].encode.remote(list(dict.fromkeys(u.text for u in units))))
    ahead = deque(units)
    waiting: list[Task] = []
    begun: dict[Unit, Open] = {}
    while ahead or waiting or pool.running:
        while ahead and len(waiting) < len(pool.free):
            waiting.append(Task(ahead.popleft(), "roots"))
        pool.submit(waiting)
        for task, result in pool.done():
            unit = task.unit
            if task.kind == "finish":
                for event in result:
                    watch(event)
                del begun[unit]
                continue
            if task.kind == "roots":
                begun[unit], steps, parcels = Open(), 0, result
            else:
                steps, parcels = result
                begun[unit].segments -= 1
            if steps:
                watch(Event("step", steps))
            begun[unit].segments += len(parcels)
            waiting += [Task(unit, "segment", p) for p in parcels]
            if begun[unit].segments == 0:
                waiting.insert(0, Task(unit, "finish"))
