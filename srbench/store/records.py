"""What a run leaves behind, typed and versioned; the report reads nothing else.

RUN/
  run.json            one RunRecord: what was asked, what it resolved to, where it ran
  cells/<id>.json     one CellRecord for each (family, method, prompt, seed)
  videos/             links into the store, named by method, prompt and seed
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from srbench.errors import UserError
from srbench.store.objects import write_text
from srbench.trace import Trace

VERSION: Literal[1] = 1
Outcome = Literal["done", "skipped", "failed", "missing"]


class _Record(BaseModel):
    # a cell that is not finite must still be readable
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class MetricFacts(_Record):
    """What a reader must know of a metric; it travels with every score."""

    name: str = Field(description="the named definition, as psnr or ssim/gauss11-valid")
    version: int
    unit: str = Field(description="dB, or empty for a plain number")
    higher_is_better: bool
    lower_bound: float | None = None
    upper_bound: float | None = None
    needs_reference: bool = True
    group: Literal["similarity", "quality", "semantic"] = Field(
        default="similarity", description="similarity to the reference, or a suite's dimension of this group"
    )
    weight: float = Field(default=1.0, description="in its group's mean")
    scale: tuple[float, float] = Field(
        default=(0.0, 1.0), description="the values that count as 0 and as 1 in its group's mean"
    )


class Score(_Record):
    """One metric of one video."""

    metric: MetricFacts
    value: float | None = Field(description="mean over frames; None where it is missing")
    per_frame: tuple[float, ...] = ()
    reference: str | None = Field(None, description="sha256 of the reference video's bytes")
    outcome: Outcome = "done"
    reason: str = ""


class Stage(_Record):
    """Seconds of one stage of a cell, device-synchronised."""

    name: Literal["encode", "denoise", "hand_over", "decode"]
    seconds: float


class CellRecord(_Record):
    """One cell: a method's video of one prompt and seed, and all that is known of it."""

    version: Literal[1] = VERSION
    id: str = Field(description="names this cell in its run")
    key: str = Field(default="", description="sha256 over all that determines the video's bytes")
    family: str
    method: str = Field(description="the method's name in the configuration")
    label: str = Field(description="the method's name for readers")
    method_id: str = Field(description="hash of the path, so equal rows are one row")
    path: list[dict[str, Any]] = Field(description="segments as they were resolved")
    is_reference: bool = False
    prompt: str
    prompt_index: int
    seed: int
    outcome: Outcome
    reason: str = ""
    video: str | None = Field(None, description="sha256 of the lossless video in the store")
    protocol: str = Field(description="hash of all that two cells of one column must share")
    trace: Trace | None = None
    step_seconds: tuple[float | None, ...] = Field(
        (), description="device-synchronised, one a step; null where an earlier run did the step"
    )
    stages: tuple[Stage, ...] = ()
    peak_memory_bytes: int | None = None
    scores: tuple[Score, ...] = ()
    shared_steps: int = Field(0, description="steps computed once for several methods")
    finished: str = Field("", description="UTC, ISO 8601")
    host: str = ""


class TextTimes(_Record):
    """Seconds that encoding each text took in this run; RUN/texts.json."""

    version: Literal[1] = VERSION
    seconds: dict[str, float]


class MethodRecord(_Record):
    """One row to be: a method that this run was asked for."""

    name: str
    label: str
    id: str = Field(description="hash of the path, as in CellRecord.method_id")
    is_reference: bool
    role: Literal["method", "scale"] = Field(
        default="method", description="scale: no rival, but a row that shows what a similarity means"
    )
    path: list[dict[str, Any]]
    steps: int | None


class RunRecord(_Record):
    """One run: what was asked, what it resolved to, and the ground it stood on."""

    version: Literal[1] = VERSION
    experiment: str
    run: str
    family: str
    asked: list[str] = Field(description="the command's overrides, as typed")
    resolved: dict[str, Any] = Field(description="the whole configuration, checked")
    store: str = Field(description="where the bytes lie, seen from the run's folder")
    methods: tuple[MethodRecord, ...] = Field(description="of all jobs that wrote to this run")
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    timing: Literal["shared", "exclusive"] = Field(
        "shared", description="step times of the sweep itself, or of a pass of its own"
    )
    protocol: str
    commit: str | None
    dirty: bool | None
    packages: dict[str, str]
    device: str
    threads: int
    warnings: tuple[str, ...] = ()
    started: str


def write_json(path: Path, record: BaseModel) -> None:
    """Write a record whole or not at all; the one that was there stays until then."""
    write_text(path, record.model_dump_json(indent=1), mode=0o644)


def _read(path: Path, kind: type[BaseModel]) -> Any:
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(
            str(path), "a file written by a run", "name a folder results/<experiment>/<run>"
        ) from None
    except ValidationError as error:
        raise UserError(
            f"{path}: {error.errors()[0]['msg']}",
            f"a record of version {VERSION}",
            "use the srbench that wrote it, or run the experiment again",
        ) from None


def read_cell(path: Path) -> CellRecord:
    """One cell's record.  Raises UserError where it cannot be read."""
    return _read(path, CellRecord)


def read_text_times(path: Path) -> TextTimes:
    """What RUN/texts.json says.  Raises UserError where it cannot be read."""
    return _read(path, TextTimes)


def read_run_record(run: Path) -> RunRecord:
    """A run's own record.  Raises UserError where it cannot be read."""
    return _read(run / "run.json", RunRecord)


def read_run(run: Path) -> tuple[RunRecord, list[CellRecord]]:
    """Everything recorded under a run's folder, cells by method, prompt and seed.

    Raises UserError where `run` is not a run's folder or a record cannot be read.
    """
    record = _read(run / "run.json", RunRecord)
    cells = [_read(p, CellRecord) for p in sorted((run / "cells").glob("*.json"))]
    return record, sorted(cells, key=lambda c: (c.prompt_index, c.seed, c.method))
