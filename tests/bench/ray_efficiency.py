"""How much of the ideal `engine=ray` reaches: `python -m tests.bench.ray_efficiency`.

The denoisers sleep, so that what is measured is our scheduling and Ray, not this machine's cores.

- 1 and 2 workers are Ray's actors, measured in one run; efficiency is T₁ / (2 T₂).
- 8, 64 and 512 workers are simulated: the engine's own `Schedule` hands out the tasks of a whole
  VBench, and denoisers sleep on a clock of their own.  That clock also runs while the scheduler
  thinks (its CPU time, on this machine) and while Ray sends a task (`--send` seconds of the
  first process for each, measured in the same run unless given).  Efficiency is the sum of all
  sleeping / (workers × the time until the last unit is finished).

Durations follow from Wan 2.1's latencies and speedups at 480p on an A800 as the paper has them, ±2 %
from segment to segment; encoding all texts (60 s), scores of a unit (15 s) and a worker's start
(120 s) are assumed.  Writes ray_efficiency.csv and .png.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import math
import random
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from srbench.engines._schedule import Fork, Report, Schedule, Task
from srbench.planning.plan import Unit

FOLDER = Path(__file__).parents[2] / "experiments" / "figures"
HAND_OVER = 0.3  # seconds: a state of 32 MiB over a network that moves 100 MiB/s
BEGIN = 120.0

# denoiser → seconds of its segment and the forks that leave it: the demo's methods
LARGE = Fork("large", "large")
SMALL = Fork("small", "small")
BRANCH = Fork("small", "branch")
CACHED = Fork("small", "branch+teacache")
PAB, TEA, FEWER = (Fork("large", name) for name in ("large+pab", "large+teacache", "fewer"))
ROOTS = (LARGE, SMALL, PAB, TEA, FEWER)
STEP = {"large": 16.82, "small": 3.16}  # seconds: 841 and 158 for 50 steps, the paper's Table 2
SECONDS = {
    LARGE: 50 * STEP["large"],
    SMALL: 50 * STEP["small"],
    BRANCH: 39 * STEP["small"],  # δ = 0.01 leaves the large model after about 11 steps
    CACHED: 39 * STEP["small"] / 1.96,  # TeaCache 0.2's speedup in Table 6
    PAB: 50 * STEP["large"] / 1.66,
    TEA: 50 * STEP["large"] / 1.96,
    FEWER: 20 * STEP["large"],
}
FORKS = {LARGE: (BRANCH, BRANCH, BRANCH, BRANCH, CACHED)}
TEXTS, START, FINISH = 60.0, 1.0, 15.0


def seconds(task: Task) -> float:
    """How long a task takes; the same for the same task in every simulation."""
    if task.begun is None:
        return TEXTS if task.kind == "encode" else BEGIN
    if task.fork is None:
        return FINISH if task.kind == "finish" else START
    unit = task.begun.unit
    spread = random.Random(f"{unit.prompt_index} {unit.seed} {task.fork.denoiser}").gauss(1, 0.02)
    return SECONDS[task.fork] * spread + HAND_OVER


def report(task: Task) -> Report:
    forks = ROOTS if task.kind == "roots" else FORKS.get(task.fork, ()) if task.fork else ()
    return Report(forks=forks)


class Sleepers:
    """A crew whose workers sleep on a clock of their own.

    send: seconds that handing out one task keeps the first process busy, beside the schedule's own.
    """

    def __init__(self, send: float) -> None:
        self.send, self.now, self.hired, self.slept, self.tasks = send, 0.0, 0, 0.0, 0
        self.asleep: list[tuple[float, int]] = []
        self.jobs: dict[int, Task] = {}
        self._thought = time.process_time()

    def hire(self) -> int:
        self.hired += 1
        return self.hired

    def dismiss(self, worker: Any) -> None:
        raise NotImplementedError("nobody dies here")

    def start(self, worker: Any, task: Task) -> int:
        self._pass(self.send)
        lasts, job = seconds(task), self.tasks
        self.tasks += 1
        self.slept += lasts if task.kind != "begin" else 0.0
        self.jobs[job] = task
        heapq.heappush(self.asleep, (self.now + lasts, job))
        return job

    def ready(self, jobs: Collection[Any]) -> Sequence[int]:
        self._pass(0.0)
        self.now = max(self.now, self.asleep[0][0])
        awake = []
        while self.asleep and self.asleep[0][0] <= self.now:
            awake.append(heapq.heappop(self.asleep)[1])
        return awake

    def collect(self, job: Any) -> tuple[Report, Sequence[Any]]:
        told = report(self.jobs.pop(job))
        return told, [None] * len(told.forks)

    def _pass(self, seconds: float) -> None:
        """The clock runs while the scheduler thinks."""
        now = time.process_time()
        self.now += now - self._thought + seconds
        self._thought = now


@dataclass(frozen=True)
class Row:
    """One line of the table.  hours: of the sleepers' clock, or of this machine's."""

    how: str
    workers: int
    units: int
    tasks: int
    placement: str
    hours: float
    efficiency: float


def simulated(workers: int, units: int, send: float, placement: Any = "together") -> Row:
    crew = Sleepers(send)
    asked = [Unit(i // 5, f"prompt {i // 5}", i % 5) for i in range(units)]
    Schedule(crew, asked, workers, placement, 3, lambda event: None).run()
    efficiency = crew.slept / (workers * crew.now)
    return Row("simulated", workers, units, crew.tasks, placement, crew.now / 3600, efficiency)


class Sleeper:
    """A Ray actor that sleeps; `scale`: how many seconds of it are one of a denoiser's."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def do(self, kind: str, unit: Unit, prompts: Any, state: Any) -> Iterator[Any]:
        task = Task(kind, state[0] if state else None, fork=state[1] if state else None)  # type: ignore[arg-type]
        if kind == "segment":
            time.sleep(self.scale * seconds(task))
        yield (told := report(task))
        for fork in told.forks:  # one by one: Ray sends to its generators
            yield _Place(unit), fork


@dataclass(frozen=True)
class _Place:
    unit: Unit


def measured(workers: int, units: int, scale: float) -> tuple[float, int]:
    """Seconds from the first root to the last unit, with Ray's actors; and how many tasks."""
    from srbench.engines._ray import RayCrew

    crew = RayCrew(Sleeper, (scale,), 0.01, 0)
    tasks, begun = 0, math.inf
    start: Callable[[Any, Task], Any] = crew.start

    def counted(worker: Any, task: Task) -> Any:
        nonlocal tasks, begun
        tasks += task.kind != "begin"
        begun = min(begun, time.perf_counter()) if task.kind == "roots" else begun
        return start(worker, task)

    crew.start = counted  # type: ignore[method-assign]
    asked = [Unit(i, f"prompt {i}", 0) for i in range(units)]
    schedule = Schedule(crew, asked, workers, "together", 3, lambda event: None)
    # both are there before the clock starts: a start-up is no part of a comparison of minutes
    while len(schedule.free) < workers:
        for job in crew.ready(schedule.running):
            schedule._take(job)
    try:
        schedule.run()
        return time.perf_counter() - begun, tasks
    finally:
        crew.close()


def real(units: int, scale: float) -> tuple[list[Row], float]:
    """1 and 2 actors, and the seconds that one task costs the first process."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    rows, alone = [], None
    try:
        took, tasks = measured(1, 4 * units, 0.0)
        for workers in (1, 2):
            lasted, count = measured(workers, units, scale)
            alone = alone or lasted
            rows.append(
                Row("Ray", workers, units, count, "together", lasted / 3600, alone / (workers * lasted))
            )
    finally:
        ray.shutdown()
    return rows, took / tasks


def draw(rows: Sequence[Row], file: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3), layout="constrained")
    for units in sorted({r.units for r in rows if r.how == "simulated"}):
        own = [r for r in rows if r.units == units and r.placement == "together"]
        axes.plot(
            [r.workers for r in own], [r.efficiency for r in own], "o-", label=f"simulated, {units} units"
        )
    ray = [r for r in rows if r.how == "Ray"]
    axes.plot([r.workers for r in ray], [r.efficiency for r in ray], "s-", label="Ray, sleeping denoisers")
    axes.axhline(0.95, color="grey", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", xlabel="workers", ylabel="of the ideal", ylim=(0.5, 1.02))
    axes.set_xticks([1, 2, 8, 64, 512], ["1", "2", "8", "64", "512"])
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=120, metadata={"Software": None})


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ray_efficiency", description=__doc__)
    parser.add_argument("--scale", type=float, default=0.002, help="seconds slept for one of a denoiser's")
    parser.add_argument("--units", type=int, default=10, help="of the measured run")
    parser.add_argument("--send", type=float, help="seconds to send a task; measured where not given")
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args()
    rows, send = real(args.units, args.scale)
    send = args.send or send
    for units in (944, 944 * 5):
        rows += [simulated(workers, units, send) for workers in (8, 64, 512)]
    rows.append(simulated(512, 944 * 5, send, "split"))
    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / "ray_efficiency.csv", "w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow([f.name for f in fields(Row)])
        out.writerows([f"{v:.4g}" if isinstance(v, float) else v for v in astuple(r)] for r in rows)
    draw(rows, args.out / "ray_efficiency.png")
    print(f"sending a task: {1000 * send:.1f} ms")
    print((args.out / "ray_efficiency.csv").read_text(), end="")


if __name__ == "__main__":
    main()
