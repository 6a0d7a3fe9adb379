"""Many devices and machines, through Ray: its scheduler, its failure detection, its object store.

The work is cut where the walk is: a segment of a branch is a task, its state goes from worker
to worker through Ray's object store.  Every worker writes to the same run and store, so both
must lie on a file system that all of them see.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from srbench.config.registry import plugin
from srbench.errors import UserError

if TYPE_CHECKING:
    from srbench.config.experiment import Experiment
    from srbench.planning.plan import Unit
    from srbench.runtime.runner import Watch

# Ray gives up a start after 30 seconds, which no setting changes; a busy machine may take longer.
STARTS = 3


@plugin
class Ray:
    """workers: actors, each with models of its own; None: one a GPU, or one for `threads` cores.

    threads: torch threads of each; results depend on the number.  address: of a cluster to
    join, `auto` for the one this machine belongs to; None starts a Ray of our own.
    placement: `together`, any worker does any segment; `split`, a worker does the large
    model's segments or the small one's, so that each device holds one model (on one GPU
    both share it).
    retries: how often a task is done again whose worker died or that raised; a method that
    fails is no such task, but a cell that says so, as everywhere (`retry_failed=true`).
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
        """Run all units; every cell is recorded when it arrives, whatever becomes of the rest.

        Raises UserError where no Ray can be reached, or workers die again and again.
        """
        import ray

        from srbench.engines._ray import RayCrew, Worker
        from srbench.engines._schedule import Schedule

        started = not ray.is_initialized()
        if started:
            self._start()
        crew = None
        try:
            gpus = 0.0 if experiment.family.device == "cpu" else ray.cluster_resources().get("GPU", 0.0)
            count = self._count(ray.cluster_resources().get("CPU", 0.0), gpus)
            arguments = self._arguments(experiment, run, store)
            # never more than there is work for; a unit's branches keep several busy
            count = min(count, len(units) * len(experiment.methods) + (self.placement == "split"))
            crew = RayCrew(Worker, arguments, self.threads, share(gpus, count))
            Schedule(crew, units, count, self.placement, self.retries, watch).run()
        finally:
            if crew is not None:
                crew.close()
            if started:
                ray.shutdown()

    def _start(self) -> None:
        """Join the cluster at `address`, or start one on this machine.  Raises UserError."""
        import ray

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a run calls nobody
        # more workers than cores are allowed, as in a trial on a laptop
        cores = None if self.address else max((self.workers or 1) * self.threads, os.cpu_count() or 1)
        for left in reversed(range(1 if self.address else STARTS)):
            try:
                knock(self.address)
                ray.init(
                    address=self.address or "local",
                    num_cpus=cores,
                    include_dashboard=None if self.address else False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
                return
            except Exception as error:  # of all kinds: Ray raises a bare Exception after a slow start
                ray.shutdown()
                if not left:
                    said = next(iter(str(error).splitlines()), type(error).__name__)
                    raise self._not_started(said) from error

    def _not_started(self, said: str) -> UserError:
        """The mistake where Ray could not be joined or started; said: its own words."""
        if self.address:
            return UserError(
                f"engine.address={self.address} ({said})",
                "a Ray cluster of this version that answers",
                "check `ray status` there, or leave engine.address out",
            )
        return UserError(
            f"engine=ray: Ray did not start on this machine ({said})",
            "a Ray that starts in time; a busy machine may need longer",
            "run the same command again when the machine is less busy, or use engine=local",
        )

    def _count(self, cpus: float, gpus: float) -> int:
        """How many workers.  Raises UserError where not one would fit."""
        if cpus < self.threads:
            raise UserError(
                f"engine.threads={self.threads} on a Ray of {cpus:g} cores",
                "as many cores for each worker as it has threads",
                "lower engine.threads",
            )
        count = self.workers or int(gpus or cpus // self.threads)
        return max(2 if self.placement == "split" else 1, count)

    def _arguments(self, experiment: Experiment, run: Path, store: Path) -> tuple[Any, ...]:
        from srbench.config.fingerprint import ground, new_job
        from srbench.engines._parcel import PackedExperiment
        from srbench.planning.plan import protocol

        here = ground(self.threads, experiment.family.device)
        packed = PackedExperiment.of(experiment)
        own = protocol(experiment, here)
        return packed, run.absolute(), store.absolute(), self.threads, Path.cwd(), own, new_job()


def knock(address: str | None) -> None:
    """Raise OSError where nobody listens at host:port: Ray itself would go on trying for many minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def share(gpus: float, workers: int) -> float:
    """How much of a GPU each worker gets: whole ones while there are enough, else equal parts of one.

    A part must fit on one GPU, so 3 workers on 2 GPUs get halves.

    >>> share(0, 4), share(8, 4), share(2, 3), share(1, 2)
    (0.0, 1.0, 0.5, 0.5)
    """
    return 1.0 / math.ceil(workers / gpus) if gpus else 0.0
