"""What a run comes to: a total only of all that is due, and what a difference must be to be seen."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from srbench.analysis import table
from srbench.errors import UserError
from srbench.store.records import Score, read_run, read_run_record, write_cell, write_json
from srbench.vbench import __main__ as command
from srbench.vbench import export, final, foreign, run
from srbench.vbench.score import DIMENSIONS, MLPERF, facts

MakeRun = Callable[..., Path]
EVERY = list(DIMENSIONS)


def raw(dimension: str, prompt: int, seed: int, method: str) -> float:
    """Another number for every video, within the dimension's scale."""
    own = DIMENSIONS[dimension]
    share = (math.sin(1 + EVERY.index(dimension) + 7 * prompt + 3 * seed + 2 * (method == "small")) + 1) / 2
    return own.low + (own.high - own.low) * share


def count(dimension: str, prompt: int) -> float:
    return 10.0 + 5 * prompt if DIMENSIONS[dimension].over == "frames" else 1.0


@pytest.fixture
def scored(make_run: MakeRun, tmp_path: Path) -> Path:
    """A run that is all of a list of nine prompts, every one of all dimensions, five videos each."""
    prompts = tuple(f"thing {i}" for i in range(9))
    folder = make_run(prompts=prompts, seeds=tuple(range(5)))
    info = tmp_path / "info.json"
    info.write_text(json.dumps([{"prompt_en": p, "dimension": EVERY} for p in prompts]))
    record = read_run_record(folder)
    suite = {"suite": {"kind": "vbench", "info": str(info)}}
    write_json(folder / "run.json", record.model_copy(update={"resolved": record.resolved | suite}))
    for cell in read_run(folder)[1]:
        scores = tuple(
            Score(
                metric=facts(d),
                value=raw(d, cell.prompt_index, cell.seed, cell.method),
                count=count(d, cell.prompt_index),
                made={"torch": "2.5.1"},
            )
            for d in EVERY
        )
        write_cell(folder, cell.model_copy(update={"scores": scores}))
    return folder


def spoil(folder: Path, dimension: str) -> None:
    """Take one video's score of a dimension away."""
    cell = next(c for c in read_run(folder)[1] if c.method == "small")
    kept = tuple(s for s in cell.scores if s.metric.name != f"vbench/{dimension}")
    gone = Score(metric=facts(dimension), value=None, outcome="failed", reason="NaN", made={"torch": "2.5.1"})
    write_cell(folder, cell.model_copy(update={"scores": (*kept, gone)}))


def by_hand(method: str) -> float:
    """The total, from the definitions alone."""
    mean = {}
    for d, own in DIMENSIONS.items():
        parts = [(raw(d, p, s, method), count(d, p)) for p in range(9) for s in range(5)]
        average = sum(v * c for v, c in parts) / sum(c for _, c in parts)
        mean[d] = own.weight * (average - own.low) / (own.high - own.low)
    quality = sum(mean[d] for d in EVERY[:7]) / 6.5
    semantic = sum(mean[d] for d in EVERY[7:]) / 9
    return 100 * (4 * quality + semantic) / 5


def test_the_total_here_and_in_the_report_are_one_number(scored: Path) -> None:
    job = run.open_run(scored)
    rows = {r.method: {v.column.key: v for v in r.values} for r in table.make(*read_run(scored)).main}
    for method in ("large", "small"):
        found = {d: final.coverage(job, method, d) for d in EVERY}
        assert final.total(found).total == pytest.approx(by_hand(method), abs=1e-9)
        assert rows[method]["vbench/total"].value == pytest.approx(by_hand(method), abs=1e-9)


@pytest.mark.parametrize("dimension", ["scene", "dynamic_degree"])
def test_one_video_short_there_is_no_total_here_or_in_the_report(scored: Path, dimension: str) -> None:
    spoil(scored, dimension)
    job = run.open_run(scored)
    with pytest.raises(UserError, match=f"{dimension} 44/45"):
        final.total({d: final.coverage(job, "small", d) for d in EVERY})
    final.total({d: final.coverage(job, "large", d) for d in EVERY})
    rows = {r.method: {v.column.key: v for v in r.values} for r in table.make(*read_run(scored)).main}
    group = "semantic" if dimension == "scene" else "quality"
    own = rows["small"]
    assert own["vbench/total"].value is None and f"no total without {group}" in own["vbench/total"].reason
    assert own[f"vbench/{group}"].value is None and f"vbench/{dimension}" in own[f"vbench/{group}"].reason
    assert rows["large"]["vbench/total"].value is not None


def test_the_standard_preset_wants_the_whole_list(scored: Path, tmp_path: Path) -> None:
    info = tmp_path / "info.json"
    plain = json.loads(info.read_text())
    info.write_text(json.dumps([*plain, {"prompt_en": "one more", "dimension": ["color"]}]))
    from srbench.suites import vbench

    vbench._read.cache_clear()
    job = run.open_run(scored)
    assert final.coverage(job, "large", "color").is_complete
    own = final.coverage(job, "large", "color", "standard")
    assert (own.scored, own.due) == (45, 50) and not own.is_complete


def test_mlperf_takes_the_first_video_of_each_prompt(scored: Path) -> None:
    job = run.open_run(scored)
    found = {d: final.coverage(job, "large", d, "mlperf") for d in MLPERF}
    means = []
    for d in MLPERF:
        parts = [(raw(d, p, 0, "large"), count(d, p)) for p in range(9)]
        means.append(sum(v * c for v, c in parts) / sum(c for _, c in parts))
    assert final.mlperf(found) == pytest.approx(100 * sum(means) / 6)


def test_the_command_prints_the_total_its_protocol_and_what_could_be_seen(
    scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["final", str(scored), "--as-published"]) == 0
    said = capsys.readouterr().out
    assert "raw scores rounded to 4 decimals" in said and "software: torch 2.5.1" in said
    assert "Δ total of small: a true difference below" in said
    assert "a subset, 9 of 944 prompts × 5 of 5 videos" in said


def test_a_quarter_of_the_prompts_detects_about_twice_the_difference(scored: Path) -> None:
    job = run.open_run(scored)
    (_, at_900), (_, at_3600) = (final.differences(job, "color", n)["small"] for n in (900, 3600))
    assert at_900 == pytest.approx(2 * at_3600, rel=2e-3)


def test_the_leaderboards_zip_has_16_files_that_read_back(scored: Path, tmp_path: Path) -> None:
    job = run.open_run(scored)
    export.leaderboard(job, "large", tmp_path / "large.zip")
    with zipfile.ZipFile(tmp_path / "large.zip") as archive:
        archive.extractall(tmp_path / "out")
    files = sorted((tmp_path / "out" / "evaluation_results").iterdir())
    found = foreign.read(files)
    assert set(found) == set(EVERY)
    for d in EVERY:
        assert (found[d].mean, found[d].lines) == (pytest.approx(final.coverage(job, "large", d).raw), 45)
    imaging = json.loads((tmp_path / "out/evaluation_results/imaging_quality_eval_results.json").read_text())
    assert max(line["video_results"] for line in imaging["imaging_quality"][1]) > 1
    assert imaging["imaging_quality"][1][1]["video_path"] == "thing 0-1.mp4"


def test_an_incomplete_run_is_not_exported(scored: Path, tmp_path: Path) -> None:
    spoil(scored, "color")
    with pytest.raises(UserError, match="color 44/45"):
        export.leaderboard(run.open_run(scored), "small", tmp_path / "small.zip")
    assert not (tmp_path / "small.zip").exists()


def test_videos_are_laid_out_for_other_suites_by_name_and_alone(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run(prompts=("a b", "c"), seeds=(3, 7), suite="prompts")
    job = run.open_run(folder)
    assert export.stage(job, "large", tmp_path / "out", "vbench2") == 4
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["a b-0.mp4", "a b-1.mp4", "c-0.mp4", "c-1.mp4"]
    with pytest.raises(UserError, match="exists"):
        export.stage(job, "large", tmp_path / "out", "long")
    with pytest.raises(UserError, match="a run of other prompts"):
        export.leaderboard(job, "large", tmp_path / "large.zip")
    with pytest.raises(UserError, match="did you mean large"):
        export.stage(job, "larg", tmp_path / "other", "long")
