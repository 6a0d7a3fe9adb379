"""The paper's tables: what stands beside what, differences by hand, and reasons where there is none."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from srbench.analysis import table
from srbench.paper import layouts, published, tables
from srbench.paper.matching import WITH_SHAPES
from srbench.paper.tables import Block
from srbench.report.printed import Footnotes
from srbench.store.records import MethodRecord, Score
from srbench.vbench import score as vbench

WAN, COG = "wan21_480p", "cogvideox"
PROMPTS, SEEDS = 9, 2
FAMILY = {
    "large": {"source": "Wan-AI/Wan2.1-T2V-14B-Diffusers"},
    "small": {"source": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"},
    "width": 832,
    "height": 480,
    "frames": 81,
    "fps": 16,
    "steps": 50,
    "scale": "full",
}
AS_PUBLISHED = published.settings()
LARGE, SMALL = {"denoiser": {"model": "large"}}, {"denoiser": {"model": "small"}}
PATHS = {
    "large": [LARGE],
    "small": [SMALL],
    "srd_0.01": [LARGE | {"until": {"kind": "srdiffusion", "delta": 0.01}}, SMALL],
}


@pytest.fixture(autouse=True)
def a_small_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published suite is as small as the runs here."""
    small = {k: replace(s, prompts=PROMPTS, seeds=SEEDS) for k, s in published.settings().items()}
    monkeypatch.setattr(published, "settings", lambda: small)


def scores(cell: Any, suite: str) -> tuple[Score, ...]:
    """All 16 dimensions of VBench, raw, of another level for each method and prompt."""
    level = {"large": 0.9, "small": 0.7, "srd_0.01": 0.85}[cell.method] + 0.004 * cell.prompt_index
    facts = (vbench.facts(d) for d in vbench.DIMENSIONS)
    renamed = (f.model_copy(update={"name": f.name.replace("vbench", suite)}) for f in facts)
    return tuple(Score(metric=f, value=f.scale[0] + level * (f.scale[1] - f.scale[0])) for f in renamed)


def a_run(
    make: Any, family: str = WAN, suite: str = "vbench", drop: Sequence[str] = (), **changes: Any
) -> table.Run:
    """Three methods over the prompts; `changes` replaces settings of the family, and `record` of the run."""
    cells = [
        c.model_copy(
            update={
                "family": family,
                "path": PATHS[c.method],
                "scores": c.scores + (scores(c, suite) if suite else ()),
            }
        )
        for c in make.cells(PROMPTS, SEEDS)
        if c.method not in drop
    ]
    methods = tuple(
        MethodRecord(name=n, label=n, id=f"id-{n}", is_reference=n == "large", path=path, steps=None)
        for n, path in PATHS.items()
        if n not in drop
    )
    record = changes.pop("record", {})
    run = make.run(
        family=family,
        methods=methods,
        prompts=tuple(f"prompt {p}" for p in range(PROMPTS)),
        seeds=tuple(range(SEEDS)),
        resolved={"family": FAMILY | changes, "suite": {"kind": suite or "vbench"}},
        **record,
    )
    return run, cells, table.make(run, cells)


def block(number: str, setting: str, *runs: table.Run) -> Block:
    (made,) = [t for t in tables.make(runs) if t.number == number]
    return next(b for b in made.blocks if b.setting.setting == setting)


def test_the_papers_layout_without_any_run() -> None:
    made = tables.make([])
    assert [(t.number, t.transposed) for t in made] == [(n, n in "67") for n in "1234567"]
    two = made[1].blocks
    assert [b.setting.setting for b in two] == [WAN, COG]
    assert [m.name for m in two[0].methods][:3] == ["Wan 14B", "Wan 1.3B", "PAB C3"]
    assert two[0].columns == tables.ORDER
    six = made[5].blocks[0]
    assert six.columns[:3] == ("vbench/total", "speedup", "vbench/semantic") and len(six.columns) == 20
    entries = [e for t in made for b in t.blocks for e in b.entries.values()]
    assert {e.quoted for e in entries if e.quoted} == {v for v in published.values() if v.table.isdigit()}
    assert not any(e.measured or e.difference for e in entries)
    assert all("python -m srbench +experiment=table" in e.absent for e in entries)


def test_only_the_papers_own_models_measure_its_rows(make: Any) -> None:
    assert block("2", WAN, a_run(make)).found == {"measured": 3}
    assert block("2", WAN, a_run(make, scale="tiny")).found == {"random weights": 3}
    assert block("2", WAN, a_run(make, family="shapes", suite="shapes")).found == {"shapes": 3}


def test_differences_by_hand(make: Any) -> None:
    run = a_run(make)
    entry = block("2", WAN, run).entries["srd_c2", "psnr"]
    value = next(r for r in run[2].main if r.method == "srd_0.01")["psnr"]
    assert entry.measured is value and value.low is not None
    assert entry.difference is not None
    assert entry.difference.value == pytest.approx(value.value - 20.53)
    assert entry.difference.low == pytest.approx(value.low - 20.53)
    assert entry.difference.high == pytest.approx(value.high - 20.53)
    total = block("2", WAN, run).entries["large", "vbench/total"]
    assert total.measured.value == pytest.approx(100 * (0.9 + 0.016))
    assert total.difference.value == pytest.approx(91.6 - 84.05)


def test_dimensions_are_normalised_and_weighted_as_the_paper_prints_them(make: Any) -> None:
    entries = block("6", WAN, a_run(make)).entries
    assert entries["small", "vbench/motion_smoothness"].measured.value == pytest.approx(71.6)
    assert entries["small", "vbench/dynamic_degree"].measured.value == pytest.approx(35.8)
    high = entries["small", "vbench/dynamic_degree"].measured.high
    assert high == pytest.approx(35.8 + 2.306 * 50 * 0.004 * 2.7386 / 3, abs=1e-3)  # t(8), sd of 0…8 is 2.74


def test_latencies_of_another_device_have_no_difference(make: Any) -> None:
    entry = block("2", WAN, a_run(make)).entries["small", "latency"]
    assert entry.measured.value and entry.difference is None
    assert entry.apart == "measured on NVIDIA H100, published on A800"
    same = a_run(make, record={"device": "NVIDIA A800-SXM4-80GB"})
    assert block("2", WAN, same).entries["small", "latency"].difference.value == pytest.approx(203.5 - 158)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"family": "shapes"}, "another family: shapes"),
        ({"scale": "tiny"}, "random weights: plumbing only"),
        ({"suite": "shapes"}, "another suite: shapes, not VBench"),
        ({"width": 640}, "640×480 pixels, the paper's are 832×480"),
        ({"frames": 49}, "49 frames at 16 a second, not 5 s"),
        (
            {"small": {"source": "me/mine"}},
            "the small model is me/mine, which isn't known to be Wan2.1-T2V-1.3B",
        ),
        ({"record": {"source": "imported"}}, "another tool's videos"),
    ],
)
def test_what_is_not_the_papers_setting_has_no_differences(make: Any, changes: Any, reason: str) -> None:
    made = block("2", WAN, a_run(make, **changes))
    assert made.entries["srd_c2", "psnr"].measured.value
    assert not made.has_difference
    assert reason in made.entries["srd_c2", "psnr"].apart
    assert any(note.startswith("differences: –") and reason in note for note in made.notes)


def test_fewer_prompts_or_a_lost_video_have_no_differences(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, cells, _ = a_run(make)
    failed = [
        c.model_copy(update={"outcome": "failed", "reason": "broke", "scores": ()}) if i == 1 else c
        for i, c in enumerate(cells)
    ]
    assert failed[1].method == "small"
    entries = block("2", WAN, (run, failed, table.make(run, failed))).entries
    assert entries["small", "latency"].apart == "incomplete: 1 of 18 videos failed: broke"
    assert entries["srd_c2", "psnr"].difference is not None
    monkeypatch.setattr(published, "settings", lambda: AS_PUBLISHED)
    assert "9 of 944 prompts" in block("2", WAN, a_run(make)).entries["srd_c2", "psnr"].apart


def test_another_suite_is_named_wherever_it_stands(make: Any) -> None:
    run = a_run(make, family="shapes", suite="shapes")
    made = block("2", WAN, run)
    assert made.entries["large", "vbench/total"].measured.column.key == "shapes/total"
    heading = "Wan 2.1 480p · measured: family shapes, suite shapes (not VBench)"
    assert layouts.heading(made) == heading
    two = next(t for t in tables.make([run]) if t.number == "2")
    for text in (layouts.to_markdown(two).replace("\\", ""), layouts.to_html(two)):
        assert heading in text
    lines = list(csv.DictReader(io.StringIO(tables.to_csv(two))))
    of_suite = {line["quantity"] for line in lines if line["measured"] and line["column"] == "vbench/total"}
    assert of_suite == {"shapes/total"}


def test_vbenchs_scorers_on_other_prompts_leave_the_suites_own_totals(make: Any) -> None:
    run, cells, _ = a_run(make, family="shapes", suite="shapes")
    cells = [c.model_copy(update={"scores": c.scores + scores(c, "vbench")[:1]}) for c in cells]
    made = block("2", WAN, (run, cells, table.make(run, cells)))
    assert made.entries["large", "vbench/total"].measured.column.key == "shapes/total"
    assert "suite shapes (not VBench)" in layouts.heading(made)


def test_missing_methods_say_which_path_and_which_command(make: Any) -> None:
    entry = block("3", WAN, a_run(make)).entries["teacache_c1", "psnr"]
    assert entry.measured is None
    assert "large+teacache(0.14)" in entry.absent and "python -m srbench +experiment=table3 " in entry.absent
    twin = a_run(make, suite="shapes", scale="tiny")
    told = block("3", WAN, twin).entries["teacache_c1", "psnr"].absent
    assert f"+experiment=table3 suite=shapes {WITH_SHAPES} family.scale=tiny makes them" in told
    told = block("3", WAN, a_run(make, family="shapes", suite="shapes")).entries["teacache_c1", "psnr"].absent
    assert f"+experiment=table3 family=shapes suite=shapes {WITH_SHAPES} makes them" in told


def test_other_steps_and_scale_rows_are_not_the_papers_method(make: Any) -> None:
    assert block("2", WAN, a_run(make, steps=30)).found == {}
    run, cells, tables = a_run(make)
    scale = tuple(m.model_copy(update={"role": "scale"}) if m.name == "small" else m for m in run.methods)
    assert block("2", WAN, (run.model_copy(update={"methods": scale}), cells, tables)).found == {
        "measured": 2
    }


def test_metrics_through_an_mp4_are_preferred_and_told(make: Any) -> None:
    run, cells, _ = a_run(make)
    mp4 = make.psnr.model_copy(update={"name": "psnr/x264-crf25-medium-16fps"})
    more = [
        c.model_copy(update={"scores": (*c.scores, Score(metric=mp4, value=20.5 + c.prompt_index / 10))})
        for c in cells
    ]
    made = block("2", WAN, (run, more, table.make(run, more)))
    assert made.entries["srd_c2", "psnr"].measured.column.key == mp4.name
    assert any("x264" in note and "lossy mp4" in note for note in made.notes)
    plain = block("2", WAN, a_run(make))
    assert any("on lossless frames" in note for note in plain.notes)


def test_each_setting_takes_its_own_run_and_the_real_one_before_a_twin(make: Any) -> None:
    real, twin = a_run(make), a_run(make, scale="tiny")
    shapes = a_run(make, family="shapes", suite="shapes")
    cog = a_run(make, family=COG, width=720, frames=49, fps=8)
    two = next(t for t in tables.make([shapes, twin, cog, real]) if t.number == "2")
    assert [b.entries["large", "psnr"].beside.run for b in two.blocks] == [real, cog]
    assert block("5", "wan21_720p", real, twin, cog).found == {}  # another of the paper's is no stand-in
    assert block("5", "wan21_720p", real, shapes).found == {"shapes": 3}


def test_two_runs_fill_one_block_only_under_one_protocol(make: Any) -> None:
    first, second = a_run(make, drop=["small"]), a_run(make, drop=["srd_0.01"])
    made = block("2", WAN, first, second)
    assert made.found == {"measured": 3} and made.entries["small", "psnr"].beside.run is second
    other = a_run(make, drop=["srd_0.01"], record={"protocol": "q" * 64})
    assert block("2", WAN, first, other).found == {"measured": 2}


def test_quoted_numbers_are_never_ranked_or_averaged_with_measured_ones(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten times the published numbers change no measured one, and nothing marks a published best."""
    run = a_run(make)
    before = block("2", WAN, run)
    plain = table.make(*run[:2])
    wild = tuple(replace(v, value=10 * v.value) for v in published.values())
    places = {(v.table, v.setting, v.method, v.column): v for v in wild}
    monkeypatch.setattr(published, "values", lambda: wild)
    monkeypatch.setattr(published, "by_place", lambda: places)
    after = block("2", WAN, run)
    again = table.make(*run[:2])
    assert (again.main, again.dimensions) == (plain.main, plain.dimensions)
    for key, entry in before.entries.items():
        assert after.entries[key].measured is entry.measured
        if entry.difference is not None and entry.quoted is not None:
            moved = after.entries[key].difference.value - entry.difference.value
            assert moved == pytest.approx(-9 * entry.quoted.value)
    two = next(t for t in tables.make([run]) if t.number == "2")
    for text in (layouts.to_markdown(two), layouts.to_latex(two), layouts.to_html(two)):
        assert not any(mark in text for mark in ("**", "textbf", "<b>", "<strong>", "best"))


def test_a_number_without_an_error_says_why(make: Any) -> None:
    run, cells, _ = a_run(make)
    few = [c for c in cells if c.prompt_index < 3]
    record = run.model_copy(update={"prompts": run.prompts[:3]})
    two = next(t for t in tables.make([(record, few, table.make(record, few))]) if t.number == "2")
    grid = layouts.grid(two, two.blocks[0], Footnotes())
    assert "±" not in grid.lines[1].texts[0]
    assert "no ± somewhere: fewer than 8 prompts, so no bootstrap error" in grid.notes


def test_lines_of_a_grid(make: Any) -> None:
    two = next(t for t in tables.make([a_run(make)]) if t.number == "2")
    notes = Footnotes()
    grid = layouts.grid(two, two.blocks[0], notes)
    large = grid.lines[:3]
    assert [line.kind for line in large] == ["published", "measured", "difference"]
    assert [line.label for line in large] == ["Wan 14B", "", ""]
    # all dimensions move together: sd of 0.004 · (0 … 8) over √9, by bootstrap, about 0.365 points;
    # the draws are by chance a little skewed, so the interval is a hair longer below
    assert [line.texts[0] for line in large] == ["84.05", "91.60 ±0.36", "+7.55 [6.70, 8.38]"]
    assert large[0].texts[3] == "–" and large[1].texts[3] == "reference"
    assert grid.headings[:4] == ("total ↑ %", "quality ↑ %", "semantic ↑ %", "LPIPS ↓")
    other = layouts.grid(two, two.blocks[1], notes)  # no run of CogVideoX
    assert {line.kind for line in other.lines} == {"published"}
    assert "no run of CogVideoX was given" in other.notes[0]


def test_a_suite_that_was_not_scored_says_how(make: Any) -> None:
    def reason(suite: str) -> str:
        run, cells, _ = a_run(make, suite="")
        record = run.model_copy(update={"resolved": {"family": FAMILY, "suite": {"kind": suite}}})
        entry = block("2", WAN, (record, cells, table.make(record, cells))).entries["large", "vbench/total"]
        assert entry.measured is None
        return entry.absent

    assert "srbench vbench score" in reason("vbench")
    assert WITH_SHAPES in reason("shapes")
    assert reason("prompts") == "the suite prompts scored nothing in this run"
