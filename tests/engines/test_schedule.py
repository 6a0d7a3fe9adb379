"""Who does what next, and what becomes of the work of workers that die; no Ray, no models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import pytest

from srbench.engines._schedule import Begun, Dead, Fork, Lost, Report, Schedule, Task, Waiting
from srbench.errors import UserError
from srbench.planning.plan import Unit
from srbench.runtime.runner import Event

LARGE, SMALL = Fork("large", "large#1"), Fork("small", "small#1")
# what a segment of a denoiser leaves behind, as the demo's methods do: the trunk three forks
FORKS = {LARGE.denoiser: (SMALL, SMALL, Fork("small", "small+teacache#1"))}


class Sleepers:
    """A crew whose workers do nothing, in the order in which they were asked.

    fails: per task kind, what its first attempts raise.
    """

    def __init__(self, fails: dict[str, list[Exception]] | None = None) -> None:
        self.fails = fails or {}
        self.hired = 0
        self.dismissed: list[int] = []
        self.done: list[tuple[int, str, Any]] = []
        self.jobs: dict[int, tuple[int, Task]] = {}

    def hire(self) -> int:
        self.hired += 1
        return self.hired

    def dismiss(self, worker: int) -> None:
        self.dismissed.append(worker)

    def start(self, worker: int, task: Task) -> int:
        assert worker not in self.dismissed
        assert all(w != worker for w, _ in self.jobs.values()), "one task at a time"
        job = len(self.done) + 1000 * worker
        self.jobs[job] = worker, task
        return job

    def ready(self, jobs: Collection[int]) -> Sequence[int]:
        assert jobs, "it waits for nobody"
        return [next(iter(jobs))]

    def collect(self, job: int) -> tuple[Report, Sequence[Any]]:
        worker, task = self.jobs.pop(job)
        if self.fails.get(task.kind):
            raise self.fails[task.kind].pop(0)
        unit = task.begun.unit if task.begun else None
        self.done.append((worker, task.kind, (unit, task.fork)))
        if task.kind == "finish":
            return Report((Event("unit"),)), []
        if task.kind == "roots":
            return Report(forks=(LARGE,)), ["state"]
        forks = FORKS.get(task.fork.denoiser, ()) if task.fork else ()
        return Report((Event("step", 10),) * (task.kind == "segment"), forks), ["state"] * len(forks)

    def kinds(self) -> Counter[str]:
        return Counter(kind for _, kind, _ in self.done)


UNITS = [Unit(i, f"prompt {i}", 0) for i in range(5)]


def run(crew: Sleepers, workers: int = 3, placement: Any = "together", retries: int = 2) -> Counter[str]:
    """Counts of the events that a watcher was told."""
    told: Counter[str] = Counter()
    watch = lambda event: told.update({event.kind: event.amount})  # noqa: E731
    Schedule(crew, UNITS, workers, placement, retries, watch).run()
    return told


def test_every_segment_of_every_unit_is_done_once_and_told() -> None:
    crew = Sleepers()
    assert run(crew) == {"unit": 5, "step": 5 * 4 * 10}
    assert crew.kinds() == {"begin": 3, "encode": 1, "roots": 5, "segment": 20, "finish": 5}
    finished = [about[0] for _, kind, about in crew.done if kind == "finish"]
    assert sorted(finished, key=UNITS.index) == UNITS
    assert {w for w, _, _ in crew.done} == {1, 2, 3}


def test_texts_come_first_and_a_unit_is_finished_after_its_segments() -> None:
    crew = Sleepers()
    run(crew)
    work = [(kind, about[0]) for _, kind, about in crew.done if kind != "begin"]
    assert work[0] == ("encode", None)
    for unit in UNITS:
        kinds = [kind for kind, u in work if u == unit]
        assert kinds == ["roots", *["segment"] * 4, "finish"]


def test_begun_units_are_finished_before_others_are_begun() -> None:
    crew = Sleepers()
    run(crew, workers=1)
    order = [about[0].prompt_index for _, kind, about in crew.done if about[0]]
    assert order == sorted(order)


def test_a_worker_goes_on_with_the_denoiser_that_it_used_last() -> None:
    crew = Sleepers()
    run(crew, workers=1)
    of_one = [about[1].denoiser for _, kind, about in crew.done if kind == "segment"][:4]
    assert of_one == ["large#1", "small#1", "small#1", "small+teacache#1"]


def test_split_gives_each_worker_one_model() -> None:
    crew = Sleepers()
    run(crew, workers=4, placement="split")
    used = {w: {about[1].role for v, _, about in crew.done if v == w and about[1]} for w in (1, 2, 3, 4)}
    assert used == {1: {"small"}, 2: {"large"}, 3: {"large"}, 4: {"large"}}


@pytest.mark.parametrize("kind", ["encode", "roots", "segment", "finish"])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_dead_workers_task_is_done_by_another_and_the_worker_replaced(kind: str, workers: int) -> None:
    crew = Sleepers({kind: [Dead("killed")]})
    assert run(crew, workers) == {"unit": 5, "step": 200}
    assert len(crew.dismissed) == 1 and crew.hired == workers + 1
    assert crew.kinds() == {"begin": workers + 1, "encode": 1, "roots": 5, "segment": 20, "finish": 5}


def test_in_split_the_one_that_is_hired_has_the_dead_ones_model() -> None:
    crew = Sleepers({"encode": [Dead("killed")]})  # by a worker of the large model
    run(crew, workers=2, placement="split")
    assert {about[1].role for w, _, about in crew.done if w == 3 and about[1]} == {"large"}


def test_a_task_that_raises_is_done_again_by_a_worker_that_lives() -> None:
    crew = Sleepers({"segment": [OSError("the file system stumbled")] * 2})
    assert run(crew) == {"unit": 5, "step": 200}
    assert crew.dismissed == []


def test_what_fails_again_and_again_ends_the_run() -> None:
    with pytest.raises(OSError, match="stumbled"):
        run(Sleepers({"segment": [OSError("the file system stumbled")] * 3}), workers=1)
    with pytest.raises(UserError, match="3 workers died over one task, `roots` of prompt 0, seed 0"):
        run(Sleepers({"roots": [Dead("out of memory")] * 3}), workers=1)
    with pytest.raises(UserError, match="3 workers in a row died before they began"):
        run(Sleepers({"begin": [Dead("no such package")] * 3}))


def test_a_users_mistake_is_told_at_once() -> None:
    crew = Sleepers({"begin": [UserError("other packages", "the same", "install them")]})
    with pytest.raises(UserError, match="other packages"):
        run(crew)


def test_a_lost_state_begins_its_unit_again_and_nothing_is_told_twice_as_finished() -> None:
    """Its machine died with the object: what waits of the old beginning is dropped."""
    crew = Sleepers()
    collect = crew.collect

    def lose(job: int) -> tuple[Report, Sequence[Any]]:
        if crew.jobs[job][1].fork == SMALL and lost:
            del crew.jobs[job]
            raise lost.pop()
        return collect(job)

    lost, crew.collect = [Lost("the object is gone")], lose  # type: ignore[method-assign]
    told = run(crew)
    assert told["unit"] == 5 and crew.kinds()["finish"] == 5
    assert crew.kinds()["roots"] == 6, "one unit was begun twice"


def test_a_worker_that_never_begins_holds_nobody_up() -> None:
    """On a cluster with room for one the other actor waits for ever."""

    class Room(Sleepers):
        def ready(self, jobs: Collection[int]) -> Sequence[int]:
            able = [j for j in jobs if self.jobs[j][0] != 2]
            assert able, "it waits for the one that never begins"
            return able[:1]

    assert run(Room(), workers=2)["unit"] == 5


def test_any_number_of_tasks_of_units_begun_again_is_passed_over() -> None:
    waiting, stale, fresh = Waiting(), Begun(UNITS[0], stale=True), Begun(UNITS[1])
    for _ in range(5_000):
        waiting.add(Task("segment", stale, fork=LARGE))
    waiting.add(Task("segment", fresh, fork=LARGE))
    task = waiting.take(("large",), None)
    assert task is not None and task.begun is fresh
    assert waiting.take(("large",), None) is None and not waiting
