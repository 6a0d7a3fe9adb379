"""`srbench score FOLDER … --reference FOLDER`: score videos that some other tool made.

Videos are paired by prompt and seed, which their names tell as VBench has it,
`{prompt}-{seed}.mp4` (without a number at the end the seed is 0), or by a CSV with the columns
video, reference, prompt and seed.  What comes out is a run's folder like any other: the same
table, figures and page, its rows marked as imported.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from srbench import decoding, errors, video
from srbench.cli import reports
from srbench.config import fingerprint, yaml_files
from srbench.config.experiment import digest
from srbench.config.registry import build, identity
from srbench.errors import UserError, UserErrorList, as_text
from srbench.metrics.base import CHUNK, Metric, Through
from srbench.runtime import given, imported
from srbench.runtime.scoring import merged, score_all, still_true
from srbench.store.objects import file_hash, locked
from srbench.store.records import (
    CellRecord,
    MethodRecord,
    RunRecord,
    cell_path,
    link_name,
    read_cell,
    read_run_record,
    write_cell,
    write_json,
)

SUFFIXES = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".gif")
UNKNOWN = "unknown (imported)"
LARGEST_SEED = 2**64 - 1  # as ComfyUI draws them
LARGEST_DIGITS = 30
SHOWN = 5  # broken videos in a warning


class Key(NamedTuple):
    """What two videos must share to be compared."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class Imported:
    """One folder's videos as a row of the table."""

    name: str
    videos: Mapping[Key, Path]
    is_reference: bool = False
    seconds: Mapping[Key, tuple[float, int]] = field(default_factory=dict)
    looked: imported.Looked[Key] | None = None

    @property
    def id(self) -> str:
        return digest(["imported", self.name, self.is_reference])

    @property
    def label(self) -> str:
        return f"{self.name} (imported)"

    @property
    def places(self) -> list[str]:
        """The folders that its videos lie in: one name in two places is two rows of two runs."""
        return sorted({as_text(Path(os.path.realpath(path)).parent) for path in self.videos.values()})


def key_of(name: str) -> Key:
    """Prompt and seed of a file's name without its suffix.

    Raises UserError for a seed of more than 64 bits.

    >>> key_of("a dog runs-3"), key_of("a dog runs")
    (Key(prompt='a dog runs', seed=3), Key(prompt='a dog runs', seed=0))
    """
    text = unicodedata.normalize("NFC", as_text(name))
    found = re.fullmatch(r"(.+)-(\d+)", text, re.DOTALL)
    return Key(found[1], _seed(found[2], text)) if found else Key(text, 0)


def _seed(digits: str, where: str) -> int:
    """Raises UserError for a seed of more than 64 bits."""
    if len(digits) > LARGEST_DIGITS or int(digits) > LARGEST_SEED:
        raise UserError(f"{where}: seed {digits}", f"a seed from 0 to {LARGEST_SEED}", "rename it")
    return int(digits)


def by_name(folder: Path) -> dict[Key, Path]:
    """A folder's videos by what their names say; other files are left alone.

    Raises UserError where there is no video, or two of one prompt and seed.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:  # no folder, or one that may not be read
        what = f"{as_text(folder)}: {error.strerror}"
        raise UserError(what, "a folder of videos", "check the path and its permissions") from None
    found: dict[Key, Path] = {}
    for path in paths:
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            other = found.setdefault(key_of(path.stem), path)
            if other is not path:
                raise UserError(
                    f"{folder}: {as_text(other.name)} and {as_text(path.name)}",
                    "one video a prompt and seed",
                    "remove one",
                )
    if not found:
        raise UserError(f"{folder}: no video in it", f"files that end in {', '.join(SUFFIXES)}", "check it")
    return found


def by_table(path: Path, folders: Sequence[Path], reference: Path) -> list[dict[Key, Path]]:
    """Videos of each folder, the reference's last, as a CSV pairs them."""
    found: list[dict[Key, Path]] = [{} for _ in [*folders, reference]]
    for number, line in given.table(path, ("video", "reference"), ("video", "reference", "prompt", "seed")):
        guess = key_of(Path(line["video"]).stem)
        seed = line.get("seed") or str(guess.seed)
        if not seed.isdecimal():
            raise UserError(f"{path}, line {number}: seed {seed!r}", "a whole number from 0 on", "correct it")
        key = Key(line.get("prompt") or guess.prompt, _seed(seed, str(path)))
        for videos, file in zip(
            found, [*(f / line["video"] for f in folders), reference / line["reference"]], strict=True
        ):
            if videos.setdefault(key, file) != file:
                raise UserError(
                    f"{path}, line {number}: {key.prompt!r}, seed {key.seed} twice",
                    "one line each",
                    "give them seeds",
                )
    return found


def paired(methods: Sequence[Imported], reference: Imported, prompts: Sequence[str] | None) -> None:
    """Refuse videos without a reference, or of prompts that the suite doesn't have, with the list."""
    lonely = [
        f"{m.name}/{as_text(path.name)}"
        for m in methods
        for key, path in m.videos.items()
        if key not in reference.videos
    ]
    if lonely:
        raise UserErrorList(
            f"{len(lonely)} video{'s' * (len(lonely) != 1)} without a reference",
            lonely,
            f"a video of the same prompt and seed in {reference.name}",
            "name them alike, `{prompt}-{seed}`, or pair them with --pairs CSV",
        )
    if prompts is not None:
        known = {unicodedata.normalize("NFC", p) for p in prompts}
        strange = list(dict.fromkeys(k.prompt for k in reference.videos if k.prompt not in known))
        if strange:
            raise UserErrorList(
                f"{len(strange)} prompts that are not the suite's",
                strange,
                "files named `{prompt}-{seed}` by the suite's own prompts",
                "rename them, or leave --suite out",
            )


# Records


@dataclass(frozen=True)
class Import:
    """All that a run of imported videos is about; the reference is the first method."""

    name: str
    methods: tuple[Imported, ...]
    metrics: tuple[Metric, ...]
    look: video.Look
    prompts: tuple[str, ...]
    suite: str | None
    told: str  # where latencies come from

    @property
    def family(self) -> dict[str, Any]:
        """What is known of the model, which is what its videos show."""
        about = self.look
        unknown = dict.fromkeys(("model", "sampler", "steps", "guidance scale", "device"), UNKNOWN)
        return {
            "kind": "imported",
            "frames": about.frames,
            "size": f"{about.width}×{about.height}",
            "fps": float(about.fps),
            "conversion to RGB": decoding.CONVERSION,
            "read from": about.encoding,
        } | unknown

    @property
    def protocol(self) -> str:
        """Hash of what is known; equal ones may still differ in what is not."""
        return digest(["imported", {k: v for k, v in self.family.items() if k != "read from"}])

    def keys(self) -> list[Key]:
        """The videos to score: those of the reference."""
        place = {p: i for i, p in enumerate(self.prompts)}
        return sorted(self.methods[0].videos, key=lambda k: (place[k.prompt], k.seed))

    def due(self) -> list[tuple[int, int]]:
        """Number of the prompt, and seed, of each video that a row should have: those of the reference.

        Of a suite's prompt that the reference lacks, every seed.
        """
        place = {p: i for i, p in enumerate(self.prompts)}
        there = [(place[k.prompt], k.seed) for k in self.keys()]
        gone = set(place.values()) - {i for i, _ in there}
        return sorted(there + [(i, s) for i in gone for s in {k.seed for k in self.keys()}])

    def absent(self, method: Imported) -> str:
        """As in `pab: no video of 2 of 10 prompts and seeds, as a dog runs, seed 1`, or empty."""
        due = self.keys()
        gone = [k for k in due if k not in method.videos]
        if not gone:
            return ""
        return (
            f"{method.name}: no video of {len(gone)} of {len(due)} prompts and seeds, "
            f"as {gone[0].prompt}, seed {gone[0].seed}"
        )

    @property
    def looked(self) -> list[imported.Looked[Key]]:
        """What was found of the videos, the reference's first."""
        return [m.looked for m in self.methods if m.looked is not None]

    @property
    def broken(self) -> list[str]:
        """The videos that cannot be read, with the reasons."""
        return imported.listed(self.looked, {m.name: m.videos for m in self.methods})

    def warnings(self) -> list[str]:
        """What a reader of the table must know of its videos."""
        found = ["videos imported: how they were made is not known here"]
        found += [f"latencies as {self.told} says, not measured here"] if self.told else []
        found += filter(None, map(self.absent, self.methods))
        if broken := self.broken:
            rest = f" and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
            count = f"{len(broken)} video{'s' * (len(broken) > 1)}"
            found.append(f"{count} failed, as FFmpeg cannot read them: {'; '.join(broken[:SHOWN])}{rest}")
        reference, *others = self.looked
        return [*found, *(text for one in others for text in imported.formats(one, reference))]

    def record(self, run: Path, store: Path, asked: Sequence[str]) -> RunRecord:
        """What is known of the run, and that the rest is not."""
        seeds = sorted({k.seed for k in self.keys()})
        made = fingerprint.software()
        return RunRecord(
            experiment=as_text(self.name),
            run=run.name,
            family="imported",
            asked=[as_text(word) for word in asked],
            resolved={
                "family": self.family,
                "suite": self.suite,
                "metrics": identity(self.metrics),
                "folders": {m.name: as_text(next(iter(m.videos.values())).parent) for m in self.methods},
            },
            store=os.path.relpath(store, run),
            methods=tuple(
                MethodRecord(
                    name=m.name, label=m.label, id=m.id, is_reference=m.is_reference, path=[], steps=None
                )
                for m in self.methods
            ),
            prompts=self.prompts,
            seeds=tuple(seeds),
            videos=tuple(self.due()),
            timing="exclusive" if self.told else "shared",
            protocol=self.protocol,
            commit=made.commit,
            dirty=made.dirty,
            packages=made.packages,
            device=f"of the videos unknown; scored on {fingerprint.described()}",
            threads=1,
            warnings=tuple(self.warnings()),
            started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            source="imported",
        )

    def folder(self, results: Path) -> Path:
        """The run's folder: the same for the same videos' places, whatever the videos are by now."""
        where = [[m.name, m.places] for m in self.methods]
        return results / self.name / digest([self.protocol, where, self.prompts], 8)

    def cell_id(self, method: Imported, key: Key) -> str:
        """Of a place in the table, not of its bytes: a video made again takes the old one's place."""
        return digest(["imported", method.id, key.prompt, key.seed], 64)

    def cell(self, method: Imported, key: Key) -> CellRecord:
        """One video, not scored yet; a failed one where it cannot be read."""
        assert method.looked is not None
        made = self._cell(method, key)
        if (look := method.looked.get(key)) is None:
            return made.model_copy(update={"outcome": "failed", "reason": method.looked.broken[key]})
        file = method.videos[key]
        return made.model_copy(
            update={
                "video": file_hash(file),
                "video_bytes": file.stat().st_size,
                "encoding": look.encoding,
                "decoder": f"{look.decoder}; {decoding.CONVERSION}",
            }
        )

    def _cell(self, method: Imported, key: Key) -> CellRecord:
        seconds, videos = method.seconds.get(key, (None, 1))
        return CellRecord(
            id=self.cell_id(method, key),
            family="imported",
            method=method.name,
            label=method.label,
            method_id=method.id,
            path=[],
            is_reference=method.is_reference,
            prompt=key.prompt,
            prompt_index=self.prompts.index(key.prompt),
            seed=key.seed,
            outcome="done",
            protocol=self.protocol,
            finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            made=fingerprint.software(),
            host=platform.node(),
            source="imported",
            latency_seconds=seconds,
            latency_videos=videos,
        )


def score_key(job: Import, key: Key, run: Path) -> bool:
    """Score all videos of one prompt and seed; scores of the same bytes are kept.

    Returns whether all of them could be read and scored.
    """
    from srbench.runtime.runner import link

    cells: list[CellRecord] = []
    paths: dict[str, Path] = {}
    for method in (m for m in job.methods if key in m.videos):
        cell = job.cell(method, key)
        if cell.outcome != "done":
            cells.append(cell)
            continue
        cells.append(cell.model_copy(update=_kept(cell_path(run, cell.id), cell)))
        paths[cell.id] = method.videos[key].resolve()
        # the page looks for this name; browsers tell containers by their bytes
        shown = link_name(cell.prompt_index, key.seed, method.name, method.id)
        link(run / "videos" / shown, paths[cell.id])

    def chunks(cell: CellRecord) -> Iterator[video.Video]:
        return video.chunks(paths[cell.id], CHUNK)

    reference = cells[0] if cells[0].outcome == "done" else None
    scored = score_all(cells, reference, job.metrics, chunks)
    for cell in scored:
        at = cell_path(run, cell.id)
        with locked(run):  # VBench's pass may have written meanwhile
            write_cell(run, merged(cell, read_cell(at) if at.exists() else None, reference))
    failed = (cell.outcome == "failed" or any(s.outcome == "failed" for s in cell.scores) for cell in scored)
    return not any(failed)


def _kept(path: Path, cell: CellRecord) -> dict[str, Any]:
    """What an earlier call recorded of these very bytes: their scores, and by what and when.

    Scores that another decoder read are not kept.
    """
    known = read_cell(path) if path.exists() else None
    if known is None or known.video != cell.video:
        return {}
    if known.decoder != cell.decoder:
        return {"scores": still_true(known, cell)}
    return {name: getattr(known, name) for name in ("scores", "made", "finished", "host")}


def forget_others(job: Import, run: Path) -> None:
    """Remove the records of videos that are no longer in the folders."""
    listed = {job.cell_id(m, key) for m in job.methods for key in m.videos}
    for path in (run / "cells").glob("[!.]*.json"):
        if read_cell(path).id not in listed:
            path.unlink(missing_ok=True)


# The command


def metrics_of(names: Sequence[str]) -> tuple[Metric, ...]:
    """Metrics by the names of their YAML; one through mp4 brings its floor along.

    Raises UserError for an unknown name.
    """
    found = []
    for name in names:
        read = yaml_files.read("metric", name)
        several = {name: read} if "kind" in read else read
        for own, settings in several.items():
            plain = {k: _resolved(v, several) for k, v in settings.items()}
            found.append(build("metrics", plain, f"metric.{own}"))
    return tuple(found)


def _resolved(value: Any, several: Mapping[str, Mapping[str, Any]]) -> Any:
    """`${metric.NAME.FIELD}` of the same file, as Hydra would have it; anything else as it is."""
    named = re.fullmatch(r"\$\{metric\.(\w+)\.(\w+)\}", str(value))
    return several[named[1]][named[2]] if named else value


def row_name(folder: Path) -> str:
    """A folder as a row of the table and a part of file names; a link goes by its own name."""
    return re.sub(r"[^\w.-]+", "_", Path(os.path.abspath(folder)).name) or "videos"


def arranged(args: argparse.Namespace) -> Import:
    """The command's arguments, checked.  Raises UserError for whatever does not fit."""
    metrics = metrics_of(args.metric)
    folders = [*args.folder, args.reference]
    names = [row_name(f) for f in folders]
    if len(set(names)) < len(names):
        raise UserError(
            f"folders named {', '.join(names)}", "a name of its own for each", "rename one, or link to it"
        )
    videos = (
        by_table(args.pairs, args.folder, args.reference) if args.pairs else [by_name(f) for f in folders]
    )
    *methods, reference = (
        Imported(n, v, f is args.reference) for n, v, f in zip(names, videos, folders, strict=True)
    )
    listed = _suites_prompts(args.suite) if args.suite else None
    paired(methods, reference, listed)
    everyone = [reference, *methods]
    looked = [imported.look_at(m.name, m.videos) for m in everyone]
    look = imported.common(looked[0], looked[1:], {m.name: m.videos for m in everyone})
    seconds = given.latencies(args.latency, {m.name: m.videos for m in everyone}) if args.latency else {}
    return Import(
        name=args.name,
        methods=tuple(
            Imported(m.name, m.videos, m.is_reference, seconds.get(m.name, {}), own)
            for m, own in zip(everyone, looked, strict=True)
        ),
        metrics=tuple(m.at_fps(float(look.fps)) if isinstance(m, Through) else m for m in metrics),
        look=look,
        prompts=tuple(listed or sorted({k.prompt for k in reference.videos})),
        suite=args.suite,
        told=args.latency.name if args.latency else "",
    )


def _suites_prompts(name: str) -> tuple[str, ...]:
    """Raises UserError where the suite's list is not on this machine."""
    suite = build("suites", yaml_files.read("suite", name), "suite")
    errors.raise_all(getattr(suite, "mistakes", list)())
    return tuple(suite.list_prompts())


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 1 where a video cannot be read or scored; 2 after a mistake of the user, listed on stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = errors.Parser(prog="srbench score", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="+", help="videos to score; one row each")
    parser.add_argument("--reference", type=Path, required=True, help="the folder they are compared with")
    metrics = ["psnr", "ssim", "lpips"]
    told = f"files of conf/metric (default: {' '.join(metrics)})"
    parser.add_argument("--metric", nargs="+", default=metrics, help=told)
    told = "a file of conf/suite; every video must be of one of its prompts (default: prompts of any kind)"
    parser.add_argument("--suite", help=told)
    told = "CSV: video, reference, and if wanted prompt, seed (default: videos of one name are a pair)"
    parser.add_argument("--pairs", type=Path, help=told)
    told = (
        "CSV: seconds, with method, or with method and video; one number for a video (default: none is shown)"
    )
    parser.add_argument("--latency", type=Path, help=told)
    told = "where the run goes (default: %(default)s)"
    parser.add_argument("--results", type=Path, default=Path("results"), help=told)
    parser.add_argument("--name", default="imported", help="folder below results (default: %(default)s)")
    args = parser.parse_args(words)
    try:
        job, console = arranged(args), Console()
        if job.broken:
            count = f"{len(job.broken)} of the videos cannot be read; the others are scored:"
            print(count, file=sys.stderr)
            print("\n".join(f"  {errors.one_line(line, 400)}" for line in job.broken), file=sys.stderr)
        run = job.folder(args.results)
        with locked(run):
            earlier = read_run_record(run) if (run / "run.json").exists() else None
            now = job.record(run, args.results / "store", words)
            write_json(run / "run.json", now.continuing(earlier))
        keys = job.keys()
        sound = True
        for i, key in enumerate(keys):
            sound = score_key(job, key, run) and sound
            print(f"{i + 1} of {len(keys)}: {key.prompt}, seed {key.seed}", file=sys.stderr)
        forget_others(job, run)
        reports.make(run, console)
    except UserError as error:
        errors.except_hook(type(error), error, error.__traceback__)
        return errors.EXIT_USER
    return 0 if sound else errors.EXIT_FAILED_CELLS


if __name__ == "__main__":
    errors.finish(main, "what was scored is kept")
