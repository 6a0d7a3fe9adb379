"""What an experiment amounts to, before anything runs: units, cells, model evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from srbench.errors import UserError
from srbench.experiment import Experiment, Method, digest
from srbench.metrics.base import all_facts
from srbench.registry import identity
from srbench.scoring import is_scored
from srbench.store.objects import Store
from srbench.store.records import CellRecord, read_cell


@dataclass(frozen=True)
class Unit:
    """The work that is done together: all methods of one prompt and seed."""

    prompt_index: int
    prompt: str
    seed: int


def units(experiment: Experiment, order: Sequence[str] = ()) -> list[Unit]:
    """Prompt by prompt, so that an interrupted run has whole prompts.

    order: the prompts of the run's record, which earlier jobs on it may have begun; a
    prompt's number is its place there.
    """
    prompts = experiment.suite.list_prompts()
    place = {p: i for i, p in enumerate(order or prompts)}
    return [Unit(place[p], p, s) for p in prompts for s in experiment.suite.list_seeds()]


def protocol(experiment: Experiment) -> str:
    """Hash of all that two cells of one column must share; a method's own choices excluded."""
    family = experiment.family
    return digest([family.essence(), family.weights_identity()])


def video_key(experiment: Experiment, method: Method, unit: Unit, ground: dict[str, str]) -> str:
    """Hash over all that determines a video's bytes.

    `ground`: the software, device class and thread count it was computed on.
    """
    family = experiment.family
    return digest(
        [
            family.essence(),
            family.weights_identity({s.denoiser.model for s in method.segments}),
            method.segments,
            method.steps,
            unit.prompt,
            method.noise_seed(unit.seed),
            ground,
        ],
        64,
    )


def cell_id(key: str, method: Method, unit: Unit) -> str:
    """What names a cell in its run; one video may be the cell of several (method, seed)."""
    return digest([key, method.id, unit.seed], 64)


def mistakes(experiment: Experiment) -> list[UserError]:
    """What is wrong with parts that are right by themselves, before a model loads."""
    found = [*experiment.family.mistakes(), *getattr(experiment.suite, "mistakes", list)()]
    try:
        all_facts(experiment.metrics, experiment.suite.list_prompts())
    except UserError as error:
        found.append(error)
    return found


def run_folder(experiment: Experiment, results: Path, run: str | None) -> Path:
    """RUN: named by protocol, prompts and seeds unless a name was given, so one more δ is the same run."""
    asked = [protocol(experiment), experiment.suite.list_prompts(), experiment.suite.list_seeds()]
    return results / experiment.name / (run or digest(asked, 8))


def cell_path(run: Path, cell: str) -> Path:
    """Where a cell's record lies."""
    return run / "cells" / f"{cell[:32]}.json"


def existing_cell(run: Path, store: Store, cell: str, retry_failed: bool) -> CellRecord | None:
    """A cell that is done with its video in the store, or that failed; None if it is to be computed."""
    path = cell_path(run, cell)
    if not path.exists():
        return None
    record = read_cell(path)
    kept = store.has(record.key) if record.outcome == "done" else not retry_failed
    return record if kept else None


def stored_path(store: Store, key: str) -> Path:
    """Where the store keeps what is known of a video besides its bytes: trace, times, host."""
    return store.root / "cells" / key[:2] / f"{key}.json"


def stored_cell(store: Store, key: str) -> CellRecord | None:
    """The cell that a video was first computed for, without its scores; None where there is none."""
    path = stored_path(store, key)
    return read_cell(path) if store.has(key) and path.exists() else None


def unfinished(
    experiment: Experiment, todo: Sequence[Unit], run: Path, store: Store, ground: dict[str, str]
) -> list[Unit]:
    """The units of which a video or a score is missing."""

    def finished(unit: Unit) -> bool:
        cells = [
            existing_cell(
                run,
                store,
                cell_id(video_key(experiment, m, unit, ground), m, unit),
                experiment.retry_failed,
            )
            for m in experiment.methods
        ]
        names = [m.name for m in experiment.methods]
        reference = cells[names.index(experiment.reference)] if experiment.reference in names else None
        return all(
            c is not None and (c.outcome == "failed" or is_scored(c, reference, experiment.metrics))
            for c in cells
        )

    return [u for u in todo if not finished(u)]


def settings(experiment: Experiment) -> dict[str, object]:
    """The whole experiment as plain data, for the record."""
    plain = identity(experiment)
    assert isinstance(plain, dict)
    return plain
