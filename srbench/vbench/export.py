"""Results in others' forms: the leaderboard's zip, folders for VBench-2.0 and VBench-Long.

The leaderboard reads any JSON file of a zip that is a dict {dimension: [mean, [video, …]]}.
VBench-2.0 and VBench-Long run elsewhere; here videos are laid out by their rules.  `foreign` reads
their result files, which have the same form.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from srbench.errors import UserError, did_you_mean
from srbench.vbench import final, run, staging
from srbench.vbench.run import Job, score_of
from srbench.vbench.score import DIMENSIONS
from srbench.vbench.staging import Encoding

Layout = Literal["vbench2", "long"]
# Videos a prompt: VBench-2.0 takes 3, and 20 where a prompt is one of its dimension Diversity;
# VBench-Long takes VBench's own 5.
MOST: Mapping[Layout, int] = {"vbench2": 20, "long": staging.MOST_VIDEOS}
# Characters of the prompt in a file's name: VBench-2.0 looks for names that are cut there.
LETTERS: Mapping[Layout, int | None] = {"vbench2": 180, "long": None}


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

    Both suites go by the original prompt, which VBench-2.0 cuts at 180 characters, a flat folder,
    and i counted from 0; files are copied, since they are to be taken elsewhere.  Raises UserError
    for a folder that is there already, too many videos a prompt, names that would fall together,
    also by the cut, and videos that are gone.
    """
    _refuse_unknown(job, method)
    seeds = job.record.seeds
    if len(seeds) > MOST[layout]:
        raise UserError(f"{len(seeds)} seeds", f"at most {MOST[layout]} videos a prompt", "take fewer seeds")
    if target.exists():
        raise UserError(f"{target} exists", "a new folder, which then holds videos alone", "name another")
    cells = [c for c in job.cells if c.method == method and c.outcome == "done"]
    cut = LETTERS[layout]
    names = {c.id: staging.name_of(c.prompt[:cut], list(seeds).index(c.seed)) for c in cells}
    _refuse_clash({c.prompt: staging.name_of(c.prompt[:cut], 0) for c in cells})
    kept = job.run / "vbench" / "encoded"
    target.mkdir(parents=True)
    try:
        for cell in cells:
            file, _ = staging.readable(run.path_of(job, cell), kept, encoding)
            shutil.copyfile(file, target / names[cell.id])
    finally:
        shutil.rmtree(kept, ignore_errors=True)
    return len(cells)


def _refuse_clash(names: Mapping[str, str]) -> None:
    """Raise UserError where two prompts' files have one name on some disk; names: of each one's first."""
    seen: dict[str, str] = {}
    for prompt, name in names.items():
        other = seen.setdefault(staging.folded(name), prompt)
        if other is not prompt:
            raise UserError(
                f"{other!r} and {prompt!r}, both named {name}",
                "prompts with different names on every disk",
                "export them as two runs",
            )


def _refuse_unknown(job: Job, method: str) -> None:
    known = list(dict.fromkeys(c.method for c in job.cells))
    if method not in known:
        raise UserError(f"method {method!r}", "a method of the run", did_you_mean(method, known))
