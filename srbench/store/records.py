"""What a run leaves behind, typed and versioned; the report reads nothing else.

RUN/
  run.json            one RunRecord: what was asked, what it resolved to, where it ran
  cells/<id>.json     one CellRecord for each (family, method, prompt, seed)
  cells.jsonl         a line of each of these that a resuming run needs; may be removed
  videos/             links into the store, named by method, prompt and seed
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from srbench.errors import UserError
from srbench.store.objects import VIDEO, write_text
from srbench.trace import Trace

VERSION: Literal[1] = 1
Outcome = Literal["done", "skipped", "failed", "missing"]
Source = Literal["generated", "imported"]  # imported: another tool made the video, only scored here


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
    code: str = Field(default="", description="hash of code and settings, of a metric that is not srbench's")


class Score(_Record):
    """One metric of one video."""

    metric: MetricFacts
    value: float | None = Field(description="mean over frames; None where it is missing")
    per_frame: tuple[float, ...] = ()
    reference: str | None = Field(default=None, description="sha256 of the reference video's bytes")
    count: float = Field(
        default=1.0,
        description="how much the value counts in a mean over videos: its frames, where the metric's own "
        "mean is over the frames of all; 0 where it leaves the video out",
    )
    made: dict[str, str] = Field(
        default_factory=dict, description="software, device and settings of a metric computed elsewhere"
    )
    outcome: Outcome = "done"
    reason: str = ""

    @property
    def at_bound(self) -> int:
        """Frames at the metric's best value, as identical ones are: of PSNR, those at its cap."""
        return self.per_frame.count(self._bound) if self._bound is not None else 0

    @property
    def value_below_bound(self) -> float | None:
        """The mean over the other frames; None where there are none."""
        below = [v for v in self.per_frame if v != self._bound]
        return sum(below) / len(below) if below else None

    @property
    def _bound(self) -> float | None:
        return self.metric.upper_bound if self.metric.higher_is_better else self.metric.lower_bound


class Stage(_Record):
    """Seconds of one stage of a cell, device-synchronised."""

    name: Literal["encode", "denoise", "hand_over", "decode"]
    seconds: float


class Software(_Record):
    """The software that made something: srbench's commit and the versions of packages."""

    commit: str | None = Field(description="of srbench; null where it is not known")
    dirty: bool | None = Field(description="whether the checkout had changes that were not committed")
    packages: dict[str, str]


class JobRecord(Software):
    """One command that wrote to a run."""

    asked: list[str] = Field(description="the command's overrides, as typed")
    started: str = Field(description="UTC, ISO 8601")


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
    prompt: str = Field(description="as the suite lists it; scores go by it")
    prompt_index: int
    text: str | None = Field(
        default=None, description="what the model was given, where it is not the prompt itself"
    )
    seed: int
    noise_seed: int | None = Field(
        default=None, description="what the noise was seeded with; null where it is not known"
    )
    outcome: Outcome
    reason: str = ""
    video: str | None = Field(default=None, description="sha256 of the lossless video in the store")
    video_bytes: int | None = Field(default=None, description="its length; a shorter file is not it")
    protocol: str = Field(description="hash of all that two cells of one column must share")
    trace: Trace | None = None
    step_seconds: tuple[float | None, ...] = Field(
        default=(), description="device-synchronised, one a step; null where an earlier run did the step"
    )
    stages: tuple[Stage, ...] = ()
    job: str = Field(
        default="", description="the job that timed the steps and stages; empty in records of older versions"
    )
    computes: dict[str, str] = Field(
        default_factory=dict,
        description="denoisers of the trace, each with the id of that which computes the same in a step "
        "that reuses nothing; without those that are their own",
    )
    peak_memory_bytes: int | None = None
    scores: tuple[Score, ...] = ()
    shared_steps: int = Field(default=0, description="steps computed once for several methods")
    finished: str = Field(default="", description="UTC, ISO 8601")
    made: Software | None = Field(
        default=None,
        description="the software that made the video, or that first scored an imported one; null in "
        "records from before it was kept",
    )
    host: str = ""
    source: Source = "generated"
    encoding: str = Field(
        default="", description="of an imported video: its codec, pixel format, matrix and range"
    )
    decoder: str = Field(
        default="",
        description="of an imported video: who decoded it and how it became RGB; scores hold for it alone",
    )
    latency_seconds: float | None = Field(
        default=None, description="of an imported video, as whoever made it says; not measured here"
    )
    latency_videos: int = Field(
        default=1, description="how many videos that one number was given for; of several it has no spread"
    )


class TextTimes(_Record):
    """Seconds that encoding each text took in this run; RUN/texts.json."""

    version: Literal[1] = VERSION
    seconds: dict[str, float]
    jobs: dict[str, str] = Field(default_factory=dict, description="text: the job that encoded it")


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
    sampler: dict[str, Any] | None = Field(
        default=None, description="its own solver and schedule; the family's where null"
    )

    @property
    def packages(self) -> tuple[str, ...]:
        """As `experiment.Method.packages`."""
        denoisers = [s.get("denoiser", {}) for s in self.path]
        loras = [(d.get("weights") or {}).get("lora") or {} for d in denoisers]
        named = [
            p
            for d, lora in zip(denoisers, loras, strict=True)
            for p in (d.get("attention_package"), lora.get("package"))
        ]
        return tuple(dict.fromkeys(p for p in named if p))


class TimingPass(_Record):
    """Methods walked alone, each in its turn, for nothing but their times; a file of RUN/timing.

    walks: one a method and round, as cells without videos; the stage `denoise` is the whole
    walk's seconds by the clock, models moved and hand-overs included.
    """

    version: Literal[1] = VERSION
    protocol: str
    device: str
    began: str = Field(description="UTC, ISO 8601")
    asked: int = Field(description="rounds that were asked for")
    rounds: int = Field(description="rounds that were finished")
    busy: float | None = Field(description="share of the processors in use just before; None: not known")
    others_bytes: int | None = Field(description="of the device's memory, held by others; None: no GPU")
    walks: tuple[CellRecord, ...]
    failed: dict[str, str] = Field(default_factory=dict, description="method: why it could not be timed")

    @property
    def method_ids(self) -> frozenset[str]:
        """The methods that were timed."""
        return frozenset(w.method_id for w in self.walks)


class RunRecord(_Record):
    """One run: what was asked, what it resolved to, and the ground it stood on."""

    version: Literal[1] = VERSION
    experiment: str
    run: str
    family: str
    asked: list[str] = Field(description="the first command's overrides, as typed")
    resolved: dict[str, Any] = Field(description="the newest command's whole configuration, checked")
    store: str = Field(description="where the bytes lie, seen from the run's folder")
    methods: tuple[MethodRecord, ...] = Field(description="of all jobs that wrote to this run")
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    videos: tuple[tuple[int, int], ...] = Field(
        default=(),
        description="number of the prompt, and seed, of each video that a method should have; empty: every "
        "prompt with every seed",
    )
    timing: Literal["shared", "exclusive"] = Field(
        default="shared", description="step times of the sweep itself, or of a pass of its own"
    )
    protocol: str
    weights: dict[str, Any] = Field(
        default_factory=dict,
        description="what names the family's weights, by role and subfolder: a commit, or the files' hash",
    )
    commit: str | None = Field(description="of the first command, as dirty, packages and started")
    dirty: bool | None
    packages: dict[str, str]
    device: str
    threads: int
    warnings: tuple[str, ...] = ()
    started: str
    later_jobs: tuple[JobRecord, ...] = Field(
        default=(), description="the commands that wrote to this run after the first, in order"
    )
    source: Source = "generated"
    passes: tuple[TimingPass, ...] = Field(
        default=(),
        exclude=True,
        description="timing passes of this protocol, newest first: not in run.json",
    )

    @property
    def jobs(self) -> tuple[JobRecord, ...]:
        """Every command that wrote to this run, in order."""
        first = {name: getattr(self, name) for name in JobRecord.model_fields}
        return (JobRecord(**first), *self.later_jobs)

    def continuing(self, earlier: RunRecord | None) -> RunRecord:
        """This record of a new command, with what `earlier` says of the commands before it."""
        if earlier is None:
            return self
        first = {name: getattr(earlier, name) for name in JobRecord.model_fields}
        return self.model_copy(update=first | {"later_jobs": (*earlier.later_jobs, *self.jobs)})

    @property
    def alone(self) -> TimingPass | None:
        """The newest timing pass, whose times come before those of earlier ones."""
        return self.passes[0] if self.passes else None


LONGEST_NAME = 255  # bytes, of a file's name on common disks


def link_name(prompt_index: int, seed: int, method: str, method_id: str) -> str:
    """Where a video's link lies below RUN/videos: p003-seed1/<method>-<id>.webm.

    Eight digits of the id: of a few hundred δ of one name, two are unlikely to share them.
    """
    return f"p{prompt_index:03}-seed{seed}/{slug(method, method_id)}{VIDEO}"


def slug(method: str, method_id: str) -> str:
    """A method in file names and addresses: `srd_01-6a17c80b`.

    A name that is too long for a file is cut; the id tells those apart that begin alike.
    """
    most = LONGEST_NAME - len(VIDEO) - 1 - 8
    cut = method.encode()[:most].decode(errors="ignore")  # never inside a character
    return f"{cut}-{method_id[:8]}"


def linked(run: Path, cell: CellRecord) -> Path:
    """A cell's link in its run, whether or not it is there.

    Older runs have four digits, by which two methods of one name may share a link: such a one is
    taken only where it leads to this very video.
    """
    own = run / "videos" / link_name(cell.prompt_index, cell.seed, cell.method, cell.method_id)
    older = own.with_name(f"{cell.method}-{cell.method_id[:4]}{VIDEO}")
    if own.exists() or cell.video is None or not older.resolve().name.startswith(cell.video):
        return own
    return older


def write_json(path: Path, record: BaseModel) -> os.stat_result:
    """Write a record whole or not at all; the one that was there stays until then."""
    return write_text(path, record.model_dump_json(indent=1), mode=0o644)


# -- what a resuming run must know of every cell, without reading 75,000 records

INDEX = "cells.jsonl"


@dataclass(frozen=True)
class Brief:
    """Of a cell's record, what decides whether there is anything left to do.

    scores: of those not skipped: hash of the metric's facts, sha256 of the reference's
    video, outcome.
    """

    id: str
    key: str
    outcome: str
    video: str | None
    video_bytes: int | None
    scores: frozenset[tuple[str, str | None, str]]


def facts_hash(facts: Mapping[str, Any]) -> str:
    """Equal for two metrics if a score of one may stand for a score of the other."""
    told = {k: v for k, v in facts.items() if k != "code" or v}  # records from before it was told
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def cell_path(run: Path, cell: str) -> Path:
    """Where a cell's record lies."""
    return run / "cells" / f"{cell[:32]}.json"


def cell_files(run: Path) -> list[Path]:
    """The records of a run's cells, in their names' order; hidden ones are still being written."""
    try:
        return sorted(p for p in (run / "cells").iterdir() if _is_record(p.name))
    except FileNotFoundError:  # no cell yet
        return []


def _is_record(name: str) -> bool:
    return name.endswith(".json") and not name.startswith(".")


def write_cell(run: Path, cell: CellRecord) -> None:
    """Write a cell's record, and its line into the index."""
    path = cell_path(run, cell.id)
    stat = write_json(path, cell)
    line = _as_bytes(_line(path.name, stat, cell.model_dump(mode="json", include=_BRIEF), facts_hash))
    # one short write at the end of the file: lines of two processes do not mix
    with open(run / INDEX, "ab", buffering=0) as index:
        index.write(line)


_BRIEF = {"id", "key", "outcome", "video", "video_bytes", "scores"}


def _line(
    name: str, stat: os.stat_result, cell: Mapping[str, Any], hashed: Callable[[Mapping[str, Any]], str]
) -> dict[str, Any]:
    """A cell's line of the index; what its record leaves out is as CellRecord has it by default."""
    scores = [s for s in cell.get("scores", ()) if s.get("outcome") != "skipped"]
    return {
        "file": name,
        "size": stat.st_size,
        "mtime": stat.st_mtime_ns,
        "id": cell["id"],
        "key": cell.get("key", ""),
        "outcome": cell["outcome"],
        "scores": [(hashed(s["metric"]), s.get("reference"), s.get("outcome", "done")) for s in scores],
        "video": cell.get("video"),
        "video_bytes": cell.get("video_bytes"),
    }


def _as_bytes(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line).encode() + b"\n"


class _Hashes:
    """facts_hash of metrics as records have them, computed once for each that there is."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Mapping[str, Any], str]] = {}

    def __call__(self, facts: Mapping[str, Any]) -> str:
        known = self._known.get(facts["name"])
        if known is None or known[0] != facts:
            whole = MetricFacts.model_validate(facts).model_dump(mode="json")
            known = self._known[facts["name"]] = facts, facts_hash(whole)
        return known[1]


def scan(run: Path) -> dict[str, Brief]:
    """Every cell of a run by its id.  Raises UserError where a record cannot be read.

    The index spares reading a record as long as the file is the one its line was written
    for; without the index, or past it, records are read and their lines added.
    """
    folder = run / "cells"
    if not folder.is_dir():
        return {}
    known, lines = _indexed(run)
    found: dict[str, dict[str, Any]] = {}
    unread = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not _is_record(entry.name):
                continue
            stat = entry.stat()
            line = known.get((entry.name, stat.st_size, stat.st_mtime_ns))
            if line is None:
                unread.append((entry.name, stat))
            else:
                found[entry.name] = line
    hashes = _Hashes()
    fresh = {name: _read_line(folder / name, stat, hashes) for name, stat in unread}
    found |= fresh
    if fresh and lines < 3 * len(found):
        with contextlib.suppress(OSError), open(run / INDEX, "ab", buffering=0) as index:
            index.write(b"".join(map(_as_bytes, fresh.values())))
    elif fresh or lines > 3 * max(len(found), 1000):
        _compact(run, found)
    briefs = map(_brief, found.values())
    return {b.id: b for b in briefs}


def _brief(line: Mapping[str, Any]) -> Brief:
    scores = frozenset((facts, reference, outcome) for facts, reference, outcome in line["scores"])
    return Brief(line["id"], line["key"], line["outcome"], line["video"], line["video_bytes"], scores)


def _indexed(run: Path) -> tuple[dict[tuple[str, int, int], dict[str, Any]], int]:
    """The index's lines by the file each was written for, and how many there are."""
    try:
        text = (run / INDEX).read_bytes()
    except OSError:
        return {}, 0
    known, lines = {}, text.splitlines()
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that was cut off
            read = from_json(line)
            known[(read["file"], read["size"], read["mtime"])] = read
    return known, len(lines)


def _compact(run: Path, found: Mapping[str, Mapping[str, Any]]) -> None:
    """One line a cell again.  Lines added by others meanwhile are lost, and only cost a read."""
    text = b"".join(map(_as_bytes, found.values())).decode()
    with contextlib.suppress(UserError):
        write_text(run / INDEX, text, mode=0o644)


def _read_line(path: Path, stat: os.stat_result, hashes: _Hashes) -> dict[str, Any]:
    """A cell's line from its record, without its trace: a tenth of the time that checking all takes."""
    try:
        with open(path, "rb", buffering=0) as file:
            cell = from_json(parted(file.read())[1])
        if cell.get("version", VERSION) == VERSION:
            return _line(path.name, stat, cell, hashes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    whole = read_cell(path)  # which says what is wrong with it, or reads what is merely unusual
    return _line(path.name, stat, whole.model_dump(mode="json"), hashes)


# A record is written with one blank of indent a level, and no string in it has a raw line end or
# a bare quotation mark: so these are the trace's own first and last line, and what comes after it.
_BEGIN, _END, _NEXT = b'\n "trace": {\n', b"\n }", b'\n "step_seconds"'


def parted(text: bytes) -> tuple[bytes, bytes]:
    """A cell's trace as JSON, empty where there is none, and its record without it: most of it is trace.

    Of a record that was written in another way the trace stays where it was.
    """
    begin = text.find(_BEGIN)
    if begin < 0:
        return b"", text
    first = begin + len(_BEGIN) - 1
    end = text.find(_NEXT, first) - len(_END) - 1
    if text[end : end + len(_END) + 1] != _END + b",":
        end = text.find(_END, first)
    last = end + len(_END)
    return text[first - 1 : last], b"".join((text[:begin], b'\n "trace": null', text[last:]))


def _read(path: Path, kind: type[BaseModel]) -> Any:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            str(path), "a file written by a run", "name a folder results/<experiment>/<run>"
        ) from None
    except OSError as error:
        raise UserError(f"{path} ({error.strerror})", "a readable record", "check its permissions") from None
    except ValidationError as error:
        version = _version(path)
        if version is not None and version > VERSION:
            raise UserError(
                f"{path}, written by a newer srbench (version {version})",
                f"a record of version {VERSION}",
                "use the srbench that wrote it, or name another run: run=…",
            ) from None
        raise UserError(
            f"{path}: {error.errors()[0]['msg']}",
            f"a record of version {VERSION}",
            "use the srbench that wrote it, or remove the file and run the same command again",
        ) from None


def _version(path: Path) -> int | None:
    try:
        version = from_json(path.read_bytes()).get("version")
    except (OSError, ValueError, AttributeError):
        return None
    return version if isinstance(version, int) else None


def read_cell(path: Path) -> CellRecord:
    """One cell's record.  Raises UserError where it cannot be read."""
    return _read(path, CellRecord)


def read_text_times(path: Path) -> TextTimes:
    """What RUN/texts.json says.  Raises UserError where it cannot be read."""
    return _read(path, TextTimes)


def read_run_record(run: Path) -> RunRecord:
    """A run's own record, with its timing passes.  Raises UserError where it cannot be read.

    A pass in which every method failed leaves the times as they were.
    """
    record: RunRecord = _read(run / "run.json", RunRecord)
    passes = tuple(p for p in read_passes(run, record.protocol) if p.walks)
    return record.model_copy(update={"passes": passes, "timing": "exclusive"}) if passes else record


TIMING = "timing"  # a run's folder of timing passes


def read_passes(run: Path, protocol: str) -> list[TimingPass]:
    """A run's timing passes of a protocol, newest first.  Raises UserError where one cannot be read."""
    files = sorted((p for p in (run / TIMING).glob("*.json") if _is_record(p.name)), reverse=True)
    passes = (_read(path, TimingPass) for path in files)
    return [p for p in passes if p.protocol == protocol]


def read_run(run: Path) -> tuple[RunRecord, list[CellRecord]]:
    """Everything recorded under a run's folder, cells by method, prompt and seed.

    Raises UserError where `run` is not a run's folder or a record cannot be read.
    """
    record = _read(run / "run.json", RunRecord)
    cells = [_read(p, CellRecord) for p in cell_files(run)]
    return record, sorted(cells, key=lambda c: (c.prompt_index, c.seed, c.method))
