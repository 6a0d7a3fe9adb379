"""Which worker does what next, whatever the workers are: Ray's actors, or a bench's sleepers.

The work is cut where the walk is.  A unit is `roots` (its first branches), a `segment` for each
branch, and `finish` (partners' noise and scores) once no segment is left.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from srbench.config.experiment import Role
from srbench.errors import UserError

if TYPE_CHECKING:
    from srbench.planning.plan import Unit
    from srbench.runtime.runner import Event, Watch

Kind = Literal["begin", "encode", "roots", "segment", "finish"]
Placement = Literal["together", "split"]


class Dead(Exception):
    """A worker died over its task."""


class Lost(Exception):
    """A branch's state is gone: it was on a machine that died."""


@dataclass(frozen=True)
class Fork:
    """A branch that waits for a worker: its model, and its denoiser's id."""

    role: Role
    denoiser: str


@dataclass(frozen=True)
class Report:
    """What a task says when it is done; the forks' states are kept beside it."""

    events: tuple[Event, ...] = ()
    forks: tuple[Fork, ...] = ()


@dataclass(eq=False)
class Begun:
    """A unit that was begun.  stale: begun again since, so that nothing of this beginning counts."""

    unit: Unit
    segments: int = 0
    redone: int = 0
    stale: bool = False


@dataclass(eq=False)
class Task:
    """Something for a worker.

    prompts: to encode.  fork, state: of a segment; the state is whatever the crew hands about.
    tries: how often it failed.
    """

    kind: Kind
    begun: Begun | None = None
    prompts: tuple[str, ...] = ()
    fork: Fork | None = None
    state: Any = None
    tries: int = 0


class Crew(Protocol):
    """Workers, and a way to talk to them."""

    def hire(self) -> Hashable:
        """A new worker, which may take its time to begin."""
        ...

    def dismiss(self, worker: Any) -> None:
        """End a worker that died or is not needed any more."""
        ...

    def start(self, worker: Any, task: Task) -> Hashable:
        """Have a worker do a task; returns the job, at once."""
        ...

    def ready(self, jobs: Collection[Any]) -> Sequence[Hashable]:
        """Those that ended; waits for the first."""
        ...

    def collect(self, job: Any) -> tuple[Report, Sequence[Any]]:
        """A job's report and its forks' states.  Raises Dead, Lost, or what the task raised."""
        ...


@dataclass
class Waiting:
    """Tasks that wait, the oldest first, found by the denoiser that they need."""

    queues: dict[tuple[Role, str], deque[tuple[int, Task]]] = field(
        default_factory=lambda: defaultdict(deque)
    )
    count: int = 0

    def add(self, task: Task, first: bool = False) -> None:
        """first: before all others of its denoiser."""
        fork = task.fork or Fork("large", "")
        self.count += 1
        queue = self.queues[fork.role, fork.denoiser]
        if first:
            queue.appendleft((-self.count, task))
        else:
            queue.append((self.count, task))

    def take(self, roles: Collection[Role], last: str | None) -> Task | None:
        """A task for a worker of these roles whose model has `last` attached; None where none fits.

        What is no segment comes first, for it is short and a unit waits for it.
        """
        while fitting := {k: q for k, q in self.queues.items() if q and k[0] in roles}:
            key = min(fitting, key=lambda k: (k[1] != "", k[1] != last, fitting[k][0][0]))
            task = fitting[key].popleft()[1]
            if not (task.begun and task.begun.stale):  # its unit was begun again meanwhile
                return task
        return None

    def __bool__(self) -> bool:
        return any(self.queues.values())


class Schedule:
    """Keeps all workers busy until every unit is finished.

    Segments of begun units come before new units, so an interrupted run has whole prompts;
    among them a worker takes those of the denoiser that it used last.
    workers: how many.  retries: how often a task is begun again that raised or whose worker
    died, and how many workers in a row may die before they begin.
    """

    def __init__(
        self,
        crew: Crew,
        units: Sequence[Unit],
        workers: int,
        placement: Placement,
        retries: int,
        watch: Watch,
    ) -> None:
        self.crew, self.watch, self.retries = crew, watch, retries
        self.units = units
        self.ahead: deque[Unit] = deque()
        self.waiting, self.busy = Waiting(), 0
        self.free: dict[Any, None] = {}  # in the order in which they fell idle
        self.running: dict[Any, tuple[Any, Task]] = {}
        self.roles: dict[Any, tuple[Role, ...]] = {}
        self.last: dict[Any, str] = {}
        self.stillborn = 0
        for i in range(workers):
            # a quarter renders: about the small model's part of the work where its steps are 5 times
            # shorter and every method but a few has some of them
            renders = i < max(1, workers // 4)
            split: tuple[Role, ...] = ("small",) if renders else ("large",)
            self._hire(("large", "small") if placement == "together" else split)

    def run(self) -> None:
        """Raises the first UserError of a task, and whatever failed more than `retries` times."""
        self.waiting.add(Task("encode", prompts=tuple(dict.fromkeys(u.text for u in self.units))))
        while self.ahead or self.waiting or self.busy:
            self._give()
            for job in self.crew.ready(self.running):
                self._take(job)

    def _hire(self, roles: tuple[Role, ...]) -> None:
        worker = self.crew.hire()
        self.roles[worker] = roles
        self._start(worker, Task("begin"))

    def _start(self, worker: Any, task: Task) -> None:
        self.busy += task.kind != "begin"
        if task.fork:
            self.last[worker] = task.fork.denoiser
        self.running[self.crew.start(worker, task)] = worker, task

    def _give(self) -> None:
        """Give every free worker something that it can do."""
        nothing: set[tuple[Role, ...]] = set()  # hundreds may be idle, and all for one reason
        for worker in list(self.free):
            roles = self.roles[worker]
            if roles in nothing:
                continue
            task = self.waiting.take(roles, self.last.get(worker))
            if task is None and self.ahead and "large" in roles:
                task = Task("roots", Begun(self.ahead.popleft()))
            if task is None:
                nothing.add(roles)
                continue
            del self.free[worker]
            self._start(worker, task)

    def _take(self, job: Hashable) -> None:
        """Take what a job ended with, good or bad."""
        worker, task = self.running.pop(job)
        self.busy -= task.kind != "begin"
        try:
            report, states = self.crew.collect(job)
        except Dead as death:
            self._replace(worker, task, death)
            return
        except Lost as loss:
            self.free[worker] = None
            self._begin_again(task, loss)
        except UserError:
            raise  # it would be the same a second time
        except Exception as error:
            self.free[worker] = None
            self._retry(task, error)
        else:
            self.free[worker] = None
            self._done(task, report, states)

    def _done(self, task: Task, report: Report, states: Sequence[Any]) -> None:
        if task.kind == "begin":
            self.stillborn = 0
        elif task.kind == "encode":
            self.ahead.extend(self.units)
        begun = task.begun
        if begun is None or begun.stale:
            return
        for event in report.events:
            self.watch(event)
        if task.kind == "finish":
            return
        begun.segments += len(report.forks) - (task.kind == "segment")
        for fork, state in zip(report.forks, states, strict=True):
            self.waiting.add(Task("segment", begun, fork=fork, state=state))
        if begun.segments == 0:
            self.waiting.add(Task("finish", begun))

    def _replace(self, worker: Any, task: Task, death: Dead) -> None:
        """Hire another in a dead worker's place; whoever is free first does its task again."""
        self.crew.dismiss(worker)
        self.last.pop(worker, None)
        if task.kind != "begin":
            self._retry(task, death)
        elif (stillborn := self.stillborn + 1) > self.retries:
            raise _died(f"{stillborn} workers in a row died before they began")
        else:
            self.stillborn = stillborn
        self._hire(self.roles.pop(worker))

    def _retry(self, task: Task, error: Exception) -> None:
        task.tries += 1
        if task.tries <= self.retries:
            self.waiting.add(task, first=True)
        elif isinstance(error, Dead):
            unit = task.begun.unit if task.begun else None
            of = f" of prompt {unit.prompt_index}, seed {unit.seed}" if unit else ""
            raise _died(f"{task.tries} workers died over one task, `{task.kind}`{of}")
        else:
            raise error

    def _begin_again(self, task: Task, loss: Lost) -> None:
        """From a unit's beginning: what it recorded, and the states in the store, are not computed again."""
        begun = task.begun
        if begun is None or task.kind == "finish":
            self._retry(task, loss)
            return
        if begun.stale:
            return
        begun.stale = True
        if begun.redone == self.retries:
            raise loss
        self.waiting.add(Task("roots", Begun(begun.unit, redone=begun.redone + 1)), first=True)


def _died(what: str) -> UserError:
    return UserError(
        what,
        "workers that live; the system may have run out of memory",
        "lower engine.workers; the same command goes on from here",
    )
