"""Results in others' forms: the leaderboard's zip, folders for VBench-2.0 and VBench-Long, and back.

The leaderboard reads any JSON file of a zip that is a dict {dimension: [mean, [video, …]]}.
VBench-2.0 and VBench-Long run elsewhere; here videos are laid out by their rules and their
result files, which have the same form, are read.
"""

from __future__ import annotations

import json
import math
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from srbench.errors import UserError, did_you_mean, one_line
from srbench.vbench import final, run, staging
from srbench.vbench.run import Job, score_of
from srbench.vbench.score import DIMENSIONS
from srbench.vbench.staging import Encoding

Layout = Literal["vbench2", "long"]
# Videos a prompt: VBench-2.0 takes 3, and 20 where a prompt is one of its dimension Diversity;
# VBench-Long takes VBench's own 5.
MOST: Mapping[Layout, int] = {"vbench2": 20, "long": staging.MOST_VIDEOS}


def leaderboard(job: Job, method: str, target: Path) -> None:
    """Write a method's results as the leaderboard takes them: evaluation_results/DIMENSION_eval_results.json.

    imaging_quality is 0 to 100 a video and 0 to 1 as a mean, as VBench has it.  Raises
    UserError unless all 16 dimensions are complete for VBench's whole standard list.
    """
    _refuse_unknown(job, method)
    if not job.is_standard:
        raise UserError("a run of other prompts", "VBench's own, all of them", "run with suite=vbench")
    found = {d: final.coverage(job, method, d, "standard") for d in DIMENSIONS}
    final.total(found)
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for dimension, own in found.items():
            plain = {dimension: [own.raw, _lines(job, method, dimension)]}
            archive.writestr(f"evaluation_results/{dimension}_eval_results.json", json.dumps(plain, indent=1))


def _lines(job: Job, method: str, dimension: str) -> list[dict[str, Any]]:
    due, lines = job.due(dimension), []
    percent = 100.0 if dimension == "imaging_quality" else 1.0
    for cell in job.cells:
        own = score_of(cell, dimension) if cell.method == method and cell.prompt in due else None
        if own is not None and own.value is not None and own.count:
            index = staging.index_of(cell.seed, job.record.seeds)
            lines.append(
                {
                    "video_path": staging.name_of(cell.prompt, index),
                    "video_results": own.value * percent,
                }
            )
    return lines


def stage(job: Job, method: str, target: Path, layout: Layout, encoding: Encoding = "rgb") -> int:
    """Lay a method's videos out in a new folder, files named `{prompt}-{i}.mp4`; returns how many.

    Both suites go by the original prompt, a flat folder, and i counted from 0; files are copied,
    since they are to be taken elsewhere.  Raises UserError for a folder that is there already,
    too many videos a prompt, names that would fall together, and videos that are gone.
    """
    _refuse_unknown(job, method)
    seeds = job.record.seeds
    if len(seeds) > MOST[layout]:
        raise UserError(f"{len(seeds)} seeds", f"at most {MOST[layout]} videos a prompt", "take fewer seeds")
    if target.exists():
        raise UserError(f"{target} exists", "a new folder, which then holds videos alone", "name another")
    cells = [c for c in job.cells if c.method == method and c.outcome == "done"]
    names = {c.id: staging.name_of(c.prompt, list(seeds).index(c.seed)) for c in cells}
    _refuse_clash(list(names.values()))
    kept = job.run / "vbench" / "encoded"
    target.mkdir(parents=True)
    try:
        for cell in cells:
            file, _ = staging.readable(run.path_of(job, cell), kept, encoding)
            shutil.copyfile(file, target / names[cell.id])
    finally:
        shutil.rmtree(kept, ignore_errors=True)
    return len(cells)


def _refuse_clash(names: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(staging.folded(name), name)
        if other is not name:
            raise UserError(
                f"{other} and {name}", "names that every disk tells apart", "export them as two runs"
            )


RESULTS = "results as VBench writes them, JSON of {dimension: [mean, [video, …]]}"
NAMED = "name its *_eval_results.json; where a mean is NaN, no video was scored"


def read_results(paths: Sequence[Path]) -> dict[str, tuple[float, int]]:
    """Means and how many videos by dimension, from result files of VBench-2.0, VBench-Long or VBench.

    Later files go over earlier ones, as on the leaderboard; list-typed ones (full_info) are no
    results and are passed over.  Raises UserError for a file that is none, or a mean that is
    no number.
    """
    found: dict[str, tuple[float, int]] = {}
    for path in paths:
        try:
            plain = json.loads(path.read_text("utf-8"))
            if isinstance(plain, list):
                continue
            found |= {str(d): _mean(path, d, own) for d, own in plain.items()}
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"{path} ({type(error).__name__})", RESULTS, NAMED) from None
    return found


def _mean(path: Path, dimension: str, own: Any) -> tuple[float, int]:
    mean = own[0] if isinstance(own, list) and own else own
    if isinstance(mean, bool) or not isinstance(mean, int | float) or not math.isfinite(mean):
        raise UserError(
            f"{path}: {dimension} is {one_line(repr(mean), 60)}, no finite number", RESULTS, NAMED
        )
    lines = own[1] if isinstance(own, list) and len(own) > 1 and isinstance(own[1], list) else []
    return float(mean), len(lines)


def _refuse_unknown(job: Job, method: str) -> None:
    known = list(dict.fromkeys(c.method for c in job.cells))
    if method not in known:
        raise UserError(f"method {method!r}", "a method of the run", did_you_mean(method, known))
