"""This machine: one process, or several."""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import contextlib
import gc
import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from srbench.config.fingerprint import new_job
from srbench.config.registry import plugin
from srbench.engines._parcel import PackedExperiment
from srbench.errors import UserError
from srbench.suites.base import text

if TYPE_CHECKING:
    from srbench.config.experiment import Experiment
    from srbench.planning.plan import Unit
    from srbench.runtime.runner import Runner, Watch


@plugin
class Local:
    """workers: processes.  threads: torch threads of each; results depend on the number."""

    workers: Annotated[int, Field(ge=1, le=1024)] = 1
    threads: Annotated[int, Field(ge=1, le=1024)] = 1

    def run(
        self, experiment: Experiment, units: Sequence[Unit], run: Path, store: Path, watch: Watch
    ) -> None:
        """Run all units; every one is recorded when it is done, whatever becomes of the rest."""
        texts = list(dict.fromkeys(u.text for u in units))
        if self.workers == 1:
            runner = _make(experiment, run, store, self.threads)
            runner.encode(texts)
            for unit in units:
                runner.unit(unit, watch)
            return
        workers = min(self.workers, len(units))
        with self._pool(PackedExperiment.of(experiment), run, store, workers, watch) as pool:
            pool.submit(_encode, texts).result()
            for future in [pool.submit(_unit, u) for u in units]:
                future.result()

    def time(
        self, experiment: Experiment, unit: Unit, run: Path, store: Path, rounds: int, watch: Watch
    ) -> None:
        """A timing pass, in one process of its own: nothing of the sweep is left in its memory.

        Nor on the device, of which this process would keep what it has freed.
        """
        _give_back()
        texts = [text(experiment.suite, p) for p in experiment.suite.list_prompts()]
        with self._pool(PackedExperiment.of(experiment), run, store, 1, watch) as pool:
            pool.submit(_time, unit, texts, rounds).result()

    @contextlib.contextmanager
    def _pool(
        self, packed: PackedExperiment, run: Path, store: Path, workers: int, watch: Watch
    ) -> Iterator[concurrent.futures.Executor]:
        """Processes with a runner each, whose events are watched here."""
        context = multiprocessing.get_context("spawn")
        events = context.Queue()
        listener = threading.Thread(target=_listen, args=(events, watch), daemon=True)
        listener.start()
        with concurrent.futures.ProcessPoolExecutor(
            workers,
            mp_context=context,
            initializer=_begin,
            initargs=(packed, run, store, self.threads, new_job(), events),
        ) as pool:
            try:
                yield pool
            except concurrent.futures.process.BrokenProcessPool:
                raise UserError(
                    "a worker died without a word",
                    "workers that live; the system may have run out of memory",
                    f"lower engine.workers (now {self.workers}); the same command goes on from here",
                ) from None
            except BaseException:
                # what they had finished is recorded; a half-written file has no name yet
                pool.shutdown(wait=False, cancel_futures=True)
                for child in multiprocessing.active_children():
                    child.terminate()
                raise
        events.put(None)
        listener.join()


def _give_back() -> None:
    """Free what models of a sweep in this process took of a GPU, so that others can have it."""
    if torch := sys.modules.get("torch"):
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def _make(experiment: Experiment, run: Path, store: Path, threads: int, job: str | None = None) -> Runner:
    from srbench.runtime.runner import Runner
    from srbench.store.objects import Store

    return Runner(experiment, run, Store(store), threads, job)


def _listen(events: Any, watch: Watch) -> None:
    while (event := events.get()) is not None:
        watch(event)


# A worker's own: set once by _begin, in the process that it starts.
_worker: dict[str, Any] = {}


def _begin(packed: PackedExperiment, run: Path, store: Path, threads: int, job: str, events: Any) -> None:
    # Ctrl-C reaches all processes of a terminal: the first one decides what it means
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker["runner"] = _make(packed.open(), run, store, threads, job)
    _worker["events"] = events


def _encode(texts: list[str]) -> None:
    _worker["runner"].encode(texts)


def _unit(unit: Unit) -> None:
    _worker["runner"].unit(unit, _worker["events"].put)


def _time(unit: Unit, texts: list[str], rounds: int) -> None:
    from srbench.runtime.timing import measure

    measure(_worker["runner"], unit, texts, rounds, _worker["events"].put)
