"""`python -m srbench +experiment=NAME …`: the door."""

from __future__ import annotations

import datetime
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from srbench import errors
from srbench.cli import reports
from srbench.config import fingerprint, yaml_files
from srbench.config.experiment import Experiment, FolderName, check
from srbench.config.overrides import checked, compose, typed_places
from srbench.config.places import as_typed
from srbench.config.registry import build, explain, identity
from srbench.errors import CannotWrite, Mistakes, UserError, counted
from srbench.planning import cost, plan
from srbench.store.objects import Store, locked
from srbench.store.records import (
    TIMING,
    MethodRecord,
    RunRecord,
    cell_files,
    read_passes,
    read_run_record,
    scan,
    write_json,
)
from srbench.vbench import environment

RUN_KEYS = ("run", "results", "store", "dry_run", "shard", "timing", "timing_rounds")


def record(
    experiment: Experiment, asked: list[str], run: Path, store: Path, here: Mapping[str, str]
) -> RunRecord:
    """The run's record; methods, prompts, seeds, commits and times of earlier jobs on it are kept.

    here: the ground.  Call it with the run locked, since it reads what it replaces.
    """
    reference = experiment.reference
    methods = {
        m.id: MethodRecord(
            name=m.name,
            label=m.label,
            id=m.id,
            is_reference=m.name == reference,
            path=identity(m.segments),
            steps=m.steps,
            sampler=None if m.sampler is None else identity(m.sampler),
            role=m.role,
        )
        for m in experiment.methods
    }
    prompts, seeds = experiment.suite.list_prompts(), experiment.suite.list_seeds()
    if (earlier := earlier_record(run)) is not None:
        kept = {m.id: m.model_copy(update={"is_reference": False}) for m in earlier.methods}
        # where a package is gone, its earlier videos stay what they are
        gone = {m.id: {"path": kept[m.id].path} for m in experiment.methods if m.lacking and m.id in kept}
        methods = kept | {i: m.model_copy(update=gone.get(i, {})) for i, m in methods.items()}
        prompts = tuple(dict.fromkeys([*earlier.prompts, *prompts]))
        seeds = tuple(dict.fromkeys([*earlier.seeds, *seeds]))
    made = fingerprint.software(tuple(p for m in experiment.methods for p in m.packages))
    now = RunRecord(
        experiment=experiment.name,
        run=run.name,
        family=experiment.family.name,
        asked=asked,
        resolved=plan.settings(experiment),
        store=os.path.relpath(store, run),
        methods=tuple(methods.values()),
        prompts=prompts,
        seeds=seeds,
        protocol=plan.protocol(experiment, here),
        weights=experiment.family.weights_identity(),
        commit=made.commit,
        dirty=made.dirty,
        packages=made.packages,
        device=fingerprint.described(experiment.family.device),
        threads=experiment.engine.threads,
        timing="shared",
        warnings=plan.warnings(experiment, prompts),
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    return now.continuing(earlier)


def earlier_record(run: Path) -> RunRecord | None:
    """What earlier jobs wrote of this run.  Raises UserError where it cannot be read."""
    return read_run_record(run) if (run / "run.json").exists() else None


def progress(console: Console) -> Progress:
    """The bar: units done, time, and how many steps were computed."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


class _Quiet:
    """Where a bar can't be seen, as in a file: a plain line at once, then one a minute at most."""

    EVERY = 60.0  # seconds

    def __init__(self, console: Console) -> None:
        self._console, self._due = console, 0.0

    def tell(self, line: str) -> None:
        now = time.monotonic()
        if not self._console.is_terminal and now >= self._due:
            self._due = now + self.EVERY
            self._console.file.write(f"{line}\n")
            self._console.file.flush()


def execute(
    experiment: Experiment, done: plan.Progress, place: Place, console: Console, label: str = ""
) -> int:
    """Run what is missing, with a bar.  Returns how many cells have failed, now or earlier."""
    if not done.unfinished:
        told = "every video and score was there already: nothing was computed"
        console.print(f"{label}: {told}" if label else told, markup=False, highlight=False)
        return done.failed
    steps = failed = 0
    quiet = _Quiet(console)
    quiet.tell(f"{counted(len(done.unfinished), 'pair')} of prompt and seed to do, into {place.run}")
    with progress(console) as bar:
        title = counted(len(experiment.methods), "method")
        task = bar.add_task(f"{label}: {title}" if label else title, total=len(done.unfinished), note="")

        def watch(event: Any) -> None:
            nonlocal steps, failed
            failed += event.failed
            steps += event.amount * (event.kind == "step")
            note = f"{counted(steps, 'step')} computed" + (
                f", {counted(failed, 'cell')} failed" if failed else ""
            )
            bar.update(task, advance=event.amount * (event.kind == "unit"), note=note)
            quiet.tell(f"{bar.tasks[0].completed:g} of {len(done.unfinished)} pairs done, {note}")

        experiment.engine.run(experiment, done.unfinished, place.run, place.store.root, watch)
    again = plan.progress(experiment, tuple(done.cells), place.run, place.store, place.ground)
    return again.failed


def time_alone(experiment: Experiment, unit: plan.Unit, rounds: int, place: Place, console: Console) -> int:
    """The timing pass, with a bar, unless one is there.  Returns how many methods could not be timed."""
    methods = plan.timed_methods(experiment)
    if not methods:
        return 0
    protocol = plan.protocol(experiment, place.ground)
    there = next(iter(read_passes(place.run, protocol)), None)
    is_whole = (
        there is not None and there.rounds >= rounds and not {m.name for m in methods} & {*there.failed}
    )
    if there and is_whole and {m.id for m in methods} <= there.method_ids:
        console.print(
            f"timed alone already, {there.began}; remove {place.run / TIMING} to do it again",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        return 0
    quiet, failed = _Quiet(console), 0
    total = rounds * len(methods)
    quiet.tell(f"timing pass: {counted(len(methods), 'method')} alone, in {counted(rounds, 'round')}")
    with progress(console) as bar:
        task = bar.add_task("timing alone", total=total, note="")

        def watch(event: Any) -> None:
            nonlocal failed
            failed += event.failed
            bar.update(task, advance=event.amount)
            quiet.tell(f"timing pass: {bar.tasks[0].completed:g} of {total} videos")

        experiment.engine.time(experiment, unit, place.run, place.store.root, rounds, watch)
    made = next(iter(read_passes(place.run, protocol)), None)
    for name, reason in made.failed.items() if made else ():
        console.print(f"could not be timed: {name}: {reason}", markup=False, highlight=False)
    return failed


def vbench_lines(experiment: Experiment, run: Path) -> list[tuple[str, str]]:
    """What a run of VBench's prompts has still to do for its scores, and what it lacks for it."""
    if getattr(experiment.suite, "kind", "") != "vbench":
        return []
    return [("VBench", environment.after(run))]


def show_plan(
    experiment: Experiment, told: cost.Price, run: Path, lacking: Sequence[UserError], console: Console
) -> None:
    """Print what would run, and what is lacking for it with the commands that bring it."""
    title = f"{experiment.name}: what would run"
    table = Table(title=title, show_header=False, title_justify="left", show_lines=False)
    for what, much in [*told.lines, ("folder", str(run)), *vbench_lines(experiment, run)]:
        table.add_row(Text(what), Text(much))
    for warning in plan.warnings(experiment, experiment.suite.list_prompts()):
        table.add_row(Text("warning"), Text(warning))
    for missing in lacking:
        table.add_row(Text("first"), Text(f"{missing.got}; see below"))
    console.print(table)
    # unbroken, so that a command can be copied
    for missing in lacking:
        lines = [f"before it can run: {missing.got}; expected {missing.expected}"]
        lines += [f"    {missing.command}"] if missing.command else []
        console.print(
            "\n".join([*lines, f"  {missing.otherwise}"]), markup=False, highlight=False, soft_wrap=True
        )


# -- what can be known to be wrong before anything is written


@dataclass(frozen=True)
class Place:
    """Where a job writes, and on what ground."""

    run: Path
    store: Store
    ground: dict[str, str]


def settle(plain: Mapping[str, Any], places: Mapping[str, str] = MappingProxyType({})) -> Experiment:
    """Plain data → Experiment.  Raises UserErrors with every mistake, the files' own included.

    places: where settings were typed, see `places.typed`; mistakes are told by these.
    """
    mistakes = Mistakes()
    experiment = mistakes.attempt(lambda: check({k: v for k, v in plain.items() if k not in RUN_KEYS}))
    mistakes.attempt(lambda: _typed_door(plain))
    if experiment is not None and plain.get("timing") == "exclusive":
        mistakes.attempt(lambda: _refuse_crowd(experiment, plain.get("shard")))
    family = plain.get("family")
    made = (
        mistakes.attempt(lambda: build("families", family, "family")) if isinstance(family, Mapping) else None
    )
    # a family that cannot be made has been told by `check`
    mistakes.found = list({str(m): m for m in mistakes.found}.values())
    # what is only not here yet does not keep a plan from being told
    if plain.get("dry_run") is not True:
        if experiment is not None:
            mistakes.found += plan.mistakes(experiment)
        elif made is not None:
            mistakes.found += made.mistakes()
    mistakes.found = [as_typed(m, places) for m in mistakes.found]
    mistakes.stop_if_any()
    assert experiment is not None
    return experiment


def _refuse_crowd(experiment: Experiment, shard: Any) -> None:
    """Raise UserError where a timing pass would not be alone."""
    engine = experiment.engine.kind
    for told, here in (
        (f"shard={shard}", shard),
        (f"engine={engine}", not hasattr(experiment.engine, "time")),
    ):
        if here:
            raise UserError(
                f"timing=exclusive with {told}",
                "one process on the machine to be timed",
                "make the videos first, with timing=shared; then the same command with engine=local and "
                "no shard computes nothing again but the times",
            )


def _typed_door(plain: Mapping[str, Any]) -> None:
    """The keys of RUN_KEYS, which are no part of an experiment."""
    try:
        Door.model_validate({k: plain[k] for k in RUN_KEYS if k in plain})
    except ValidationError as error:
        raise errors.UserErrors(explain(error, "", list(RUN_KEYS))) from None


def _shard(given: Any) -> str:
    plan.Shard.read(str(given))
    return str(given)


class Door(BaseModel):
    """Where to write, and whether to."""

    run: FolderName | None = None
    results: Annotated[str, Field(min_length=1)] = "results"
    store: Annotated[str, Field(min_length=1)] = "results/store"
    dry_run: Annotated[bool, Field(strict=True)] = False
    shard: Annotated[str, BeforeValidator(_shard)] | None = None
    timing: Literal["shared", "exclusive"] = "shared"
    timing_rounds: Annotated[int, Field(strict=True, ge=1, le=1000)] = 3


def refuse_place(experiment: Experiment, place: Place) -> None:
    """Raise UserErrors for folders that cannot be written, and for what others left in them."""
    mistakes = Mistakes()
    for key, folder in (("results", place.run), ("store", place.store.root)):
        mistakes.attempt(lambda k=key, f=folder: _refuse_closed(k, f))  # type: ignore[misc]
    mistakes.attempt(place.store.refuse_newer)
    mistakes.attempt(lambda: refuse_run(experiment, place))
    mistakes.stop_if_any()


def refuse_run(experiment: Experiment, place: Place) -> None:
    """Raise UserErrors where what others recorded of this run cannot stand beside what is to come."""
    mistakes = Mistakes()
    earlier = mistakes.attempt(lambda: earlier_record(place.run))
    now = plan.protocol(experiment, place.ground)
    if earlier is not None and earlier.protocol != now:
        mistakes.note(
            f"run={place.run.name}, begun under protocol {earlier.protocol}",
            f"one under protocol {now}, that of these settings, weights, packages and device",
            "name another run: run=…, or leave run out",
        )
    if earlier is not None:
        _refuse_other_packages(experiment, earlier, mistakes)
    mistakes.stop_if_any()


def _refuse_other_packages(experiment: Experiment, earlier: RunRecord, mistakes: Mistakes) -> None:
    """A row is of one version of the packages that it attends with or is fused by."""
    before = {m.id: set(m.packages) for m in earlier.methods}
    for method in experiment.methods:
        here = set(method.packages)
        if here and before.get(method.id, set()) - here:
            mistakes.note(
                f"run={earlier.run}, where {method.name} ran on {', '.join(sorted(before[method.id]))}",
                f"the same package, and not {', '.join(sorted(here))}",
                "name another run: run=…, or leave the method out; the other methods' videos are shared",
            )


def _refuse_closed(key: str, folder: Path) -> None:
    """Ask the system about the folder, or the nearest one above it that exists."""
    try:
        there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
        writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    except (OSError, ValueError) as error:  # ValueError: no file can have such a name
        raise UserError(f"{key}: {folder} ({error})", "the path of a folder", f"set {key}=…") from None
    if not writable:
        raise UserError(
            f"{key}: {folder}",
            f"a folder that can be written, but {there} cannot",
            f"set {key}=…, or its permissions",
        )


def refuse_full(told: cost.Price, store: Path) -> None:
    """Raise UserError where the plan's videos and states will not fit on the store's disk."""
    there = next(p for p in (store.absolute(), *store.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    if told.disk is not None and told.disk > free:
        raise UserError(
            f"{cost.size(free)} free for the store {store}",
            f"room for {cost.size(told.disk)} of videos and states, as dry_run=true reckons",
            "free some, set store=… to another disk, keep fewer states (keep=none) or ask for less",
        )


# -- a job


def job(
    plain: Mapping[str, Any],
    asked: list[str],
    label: str = "",
    places: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """One job, from plain data to a table.  Returns the exit code.

    label: what tells it from the other jobs of a multirun.  places: where settings were typed.
    """
    console = Console()
    experiment = settle(plain, places)
    here = fingerprint.ground(experiment.engine.threads, experiment.family.device)
    results = Path(plain["results"])
    run = plan.run_folder(experiment, results, plain["run"], here)
    place = Place(run, Store(Path(plain["store"])), here)
    refuse_place(experiment, place)
    earlier = earlier_record(run)
    shard = plan.Shard.read(plain["shard"]) if plain.get("shard") else plan.Shard()
    todo = shard.part(plan.units(experiment, earlier.prompts if earlier else ()))
    if not todo:
        console.print(f"shard {plain['shard']}: more shards than prompts × seeds, nothing is left for it")
        return 0
    done = plan.progress(experiment, todo, run, place.store, here)
    device = fingerprint.described(experiment.family.device)
    rounds = plain["timing_rounds"] if plain["timing"] == "exclusive" else 0
    keys = plan.Keys(experiment, here)
    told = cost.price(experiment, done, keys, place.store, results, device, rounds, shard)
    if plain["dry_run"]:
        lacking = [as_typed(m, places) for m in plan.mistakes(experiment)]
        show_plan(experiment, told, run, lacking, console)
        return 0
    refuse_full(told, place.store.root)
    return _run(experiment, asked, place, shard, done, console, label, rounds)


def _run(
    experiment: Experiment,
    asked: list[str],
    place: Place,
    shard: plan.Shard,
    done: plan.Progress,
    console: Console,
    label: str,
    rounds: int,
) -> int:
    """Everything of a job that writes.  rounds: of the timing pass, 0 for none."""
    run, began = place.run, time.time()
    try:
        with locked(run):
            refuse_run(experiment, place)  # another job may have begun it since it was asked
            about = record(experiment, asked, run, place.store.root, place.ground)
            write_json(run / "run.json", about)
        for warning in about.warnings:
            console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
        # a prompt's number is its place in the record, which another job may have lengthened
        todo = shard.part(plan.units(experiment, about.prompts))
        if todo != list(done.cells):
            done = plan.progress(experiment, todo, run, place.store, place.ground)
        failed = execute(experiment, done, place, console, label)
        if rounds and todo:
            failed += time_alone(experiment, todo[0], rounds, place, console)
        for what, much in vbench_lines(experiment, run):
            console.print(f"{what}: {much}", markup=False, highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        console.print(f"interrupted; {kept(run, began)}. The same command goes on from there.", markup=False)
        return errors.EXIT_INTERRUPTED
    except Exception as error:
        full = error if isinstance(error, CannotWrite) else errors.cannot_write(error, run)
        if full is None or (isinstance(error, UserError) and error is not full):
            raise
        raise UserError(f"{full.got}; {kept(run, began)}", full.expected, full.do) from None
    if shard.of > 1 and (others := _still_to_come(experiment, about, place)):
        console.print(
            f"shard {shard.place}/{shard.of} done, {counted(others, 'cell')} of other shards are not; "
            f"the report comes with the last, or by srbench report {run}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    else:
        _to_report.setdefault(run)
    return errors.EXIT_FAILED_CELLS if failed else 0


def _still_to_come(experiment: Experiment, about: RunRecord, place: Place) -> int:
    """How many cells of what is asked, all shards together, nobody has recorded yet."""
    keys, there = plan.Keys(experiment, place.ground), scan(place.run)
    wanted = {keys.cell(m, u) for u in plan.units(experiment, about.prompts) for m in experiment.methods}
    return len(wanted - there.keys())


def kept(run: Path, began: float) -> str:
    """How many cells are recorded, and how many of them since a moment."""
    try:
        times = [f.stat().st_mtime for f in cell_files(run)]
    except OSError:
        times = []
    fresh = sum(t >= began for t in times)
    are = "is" if len(times) == 1 else "are"
    return f"{counted(len(times), 'cell')} {are} kept in {run}, {fresh} of them from now"


# What the jobs of one command left: their exit codes, and the runs to report once at the end.
_codes: list[int] = []
_to_report: dict[Path, None] = {}


@hydra.main(version_base=None, config_path=str(yaml_files.FOLDER), config_name="config")
def _hydra(cfg: DictConfig) -> None:
    about = HydraConfig.get()
    asked = list(about.overrides.task)
    swept = [o for o in asked if about.mode == RunMode.MULTIRUN and o not in sys.argv]
    try:
        _codes.append(job(compose(cfg), asked, " ".join(swept), typed_places(cfg)))
    except UserError as error:  # Hydra would print its own account of it
        print(f"srbench: {error}", file=sys.stderr)
        _codes.append(errors.EXIT_USER)
    if _codes[-1] == errors.EXIT_INTERRUPTED:
        sys.exit(errors.EXIT_INTERRUPTED)  # the jobs that follow were interrupted too


def main() -> int:
    """The command: one job, or with -m one for every combination."""
    sys.excepthook = errors.except_hook
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Slurm and timeout end it: told as Ctrl-C
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # what is no user's mistake keeps its traceback
    try:
        sys.argv[1:] = checked(sys.argv[1:], settle)
        _hydra()
        for run in _to_report:
            reports.make(run, Console())
    except SystemExit as stop:  # Hydra's own, and that of an interrupted multirun
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return max(_codes, default=0)


if __name__ == "__main__":
    errors.finish(main, "the same command goes on from what is recorded")
