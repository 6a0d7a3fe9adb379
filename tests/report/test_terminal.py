"""The table as text, and the command, with no torch about."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from srbench.analysis import table
from srbench.analysis.table import decimals, rows, shown
from srbench.report.printed import without_empty
from srbench.report.terminal import show
from srbench.store.records import Score

ROOT = Path(__file__).parents[2]
# The command as `python -m` runs it, but every import of these three fails.
WITHOUT_TORCH = """
import runpy, sys
sys.modules.update(dict.fromkeys(["torch", "diffusers", "hydra"]))
runpy.run_module("srbench.cli.report", run_name="__main__")
"""


def text(run: Any, cells: Any, width: int = 100) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None)
    made = table.make(run, cells)
    show(run, cells, made.main, console, made.dimensions)
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 160])
@pytest.mark.parametrize("prompts", [1, 3])
def test_no_number_is_cut(make: Any, width: int, prompts: int) -> None:
    run, cells = make.run(), make.cells(prompts)
    cells = [c.model_copy(update={"label": f"{c.label} with a rather long name"}) for c in cells]
    said = text(run, cells, width)
    assert max(map(len, said.splitlines())) <= width
    assert "…" not in said
    narrow, _ = without_empty(rows(run, cells))
    for column in zip(*(r.values for r in narrow), strict=True):
        if not column[0].column.key.startswith("evaluations_"):
            for value in column:
                assert shown(value, decimals(column)) in said
    mean = "23/77/0" if prompts == 3 else "21/79/0"
    assert mean in said and "100/0/0" in said


def test_two_metrics_fit_one_table_at_100_columns(make: Any) -> None:
    cells = [c.model_copy(update={"scores": c.scores[:2]}) for c in make.cells()]
    assert text(make.run(), cells).count("\nmethod ") == 1
    assert text(make.run(), make.cells(), 60).count("\nmethod ") > 1


@pytest.mark.parametrize("width", range(48, 112, 4))
def test_short_labels_leave_their_heading_whole(make: Any, width: int) -> None:
    cells = [c.model_copy(update={"label": c.label[:2]}) for c in make.cells()]
    first_words = [line.split()[:1] for line in text(make.run(), cells, width).splitlines()]
    assert ["method"] in first_words and ["meth"] not in first_words and ["metho"] not in first_words


def test_header_names_what_was_run(make: Any) -> None:
    said = text(make.run(), make.cells())
    for part in ("wan480_delta_sweep", "2025-01-31_a1b2", "family wan", "NVIDIA H100"):
        assert part in said
    assert "0123456789ab (dirty)" in said and "3 prompts × 2 seeds" in said
    clean = text(make.run(dirty=False, commit=None), make.cells(1, 1))
    assert "dirty" not in clean and "commit unknown" in clean and "1 prompt × 1 seed" in clean


def test_footnotes_say_why(make: Any) -> None:
    cells = make.cells()
    cells[1] = cells[1].model_copy(update={"outcome": "failed", "reason": "out of memory. x"})
    said = text(make.run(warnings=("a [bold] warning",)), cells)
    assert "¹ 1 of 6 videos failed: out of memory\n" in said
    assert said.count("out of memory") == 1
    assert "Warning: a [bold] warning" in said  # not taken for markup
    one = text(make.run(), make.cells(prompts=1))
    assert "24.05 " in one and "±–" not in one
    assert one.count("one prompt only") == 1, "said once, below"


def test_warnings_come_first(make: Any) -> None:
    said = text(make.run(warnings=("random weights: plumbing only",)), make.cells())
    assert said.startswith("Warning: random weights: plumbing only\n")


def test_headings_are_explained_below(make: Any) -> None:
    said = " ".join(text(make.run(), make.cells(4), 200).split())
    for words in (
        "evals L/S/reused: model evaluations a video, computed by the large model, by the small model, and "
        "taken from an accelerator's cache (a guided step is two)",
        "switch step: steps done before",
        "speedup: the reference's mean latency",
        "PSNR: psnr, version 1",
        "*: the best of its column",
    ):
        assert words in said


def test_what_no_method_has_is_told_last_and_once(make: Any) -> None:
    cells = [c.model_copy(update={"stages": ()}) for c in make.cells(4)]
    lines = text(make.run(), cells, 200).splitlines()
    assert lines[-1].startswith(
        "no column for: peak memory (8 of 8 videos lack it: not recorded, as on a CPU"
    )
    assert sum("no column" in line for line in lines) == 1


def test_dimensions_that_no_total_sums_up_have_a_table_of_their_own(make: Any) -> None:
    """VBench's scorers take other prompts too, in nine dimensions; totals are of VBench's own prompts."""
    flicker = make.dimension("vbench/temporal_flickering", "quality")
    sharp, color = make.dimension("shapes/sharp", "quality"), make.dimension("shapes/color", "semantic")
    cells = [
        c.model_copy(update={"scores": tuple(Score(metric=d, value=0.75) for d in (flicker, sharp, color))})
        for c in make.cells(4)
    ]
    shapes = make.run(resolved={"suite": {"kind": "shapes"}})
    said = text(shapes, cells, 120)
    head = next(line for line in said.splitlines() if "flickering" in line)
    assert "sharp" not in head and "0.750" in said, "shapes' own are in its totals"
    assert "vbench/temporal_flickering, version 1, quality" in said
    assert "quality lacks" not in said and "vbench" not in said.partition("mean over")[0]
    of_vbench = make.run(resolved={"suite": {"kind": "vbench"}})
    said = text(of_vbench, cells, 120)
    assert "quality lacks vbench/subject_consistency" in said and "flickering ↑" in said


def test_scale_rows_stand_below_a_rule(make: Any) -> None:
    named = make.named("large", "small", "srd_0.01", "bf16")
    named = (*named[:3], named[3].model_copy(update={"role": "scale"}))
    cells = [make.cell("bf16", p, s, scores=make.scores(60.0), path=[{}]) for p in range(3) for s in (0, 1)]
    lines = text(make.run(methods=named), [*make.cells(), *cells], 160).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("bf16"))
    assert set(lines[at - 1]) == {"─"}


def report(argument: Path, code: str = WITHOUT_TORCH) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, str(argument)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"COLUMNS": "100", "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"},
    )


def test_command_without_torch(make: Any, run_folder: Callable[..., Path]) -> None:
    folder = run_folder(make.run(), make.cells())
    done = report(folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "25.05 ±0.58" in done.stdout and str(folder) in done.stdout
    assert (folder / "table.csv").read_text(encoding="utf-8").startswith("method,method_id,")


def test_command_tells_a_mistake_in_three_lines(tmp_path: Path) -> None:
    done = report(tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 3 and "Traceback" not in done.stderr
    assert done.stdout == ""
