"""Scores of a run through a worker that only pretends: what is asked, kept, refused and recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from srbench.analysis import table
from srbench.errors import UserError
from srbench.runtime.scoring import score_all
from srbench.store.records import CellRecord, read_cell, read_run, write_cell, write_json
from srbench.vbench import __main__ as command
from srbench.vbench import final, run
from srbench.vbench.run import Options, open_run, score, score_of

MakeRun = Callable[..., Path]
StandIn = Any  # of conftest


def quiet(said: str) -> None:
    pass


def cells_of(folder: Path, method: str, dimension: str) -> list[CellRecord]:
    job = run.open_run(folder)
    return [c for c in job.cells if c.method == method and c.prompt in job.due(dimension)]


def test_what_is_staged_for_a_dimension_is_its_prompts_by_their_official_names(
    make_run: MakeRun, stand_in: StandIn
) -> None:
    score(make_run(), Options(dimensions=("color",), methods=("large",)), quiet)
    (asked,) = stand_in.asked
    assert asked["names"] == ["a dog-0.mp4", "a dog-1.mp4"]
    assert (asked["mode"], asked["info"], asked["prompts"]) == ("vbench_standard", ["a dog"], {})


def test_prompts_equal_up_to_case_never_share_a_folder(make_run: MakeRun, stand_in: StandIn) -> None:
    folder = make_run()
    score(folder, Options(dimensions=("imaging_quality",), methods=("large",)), quiet)
    first, second = stand_in.asked
    assert first["names"] == ["a cat-0.mp4", "a cat-1.mp4", "a façade-0.mp4", "a façade-1.mp4"]
    assert second["names"] == ["A Cat-0.mp4", "A Cat-1.mp4"]
    assert all(score_of(c, "imaging_quality") for c in cells_of(folder, "large", "imaging_quality"))


def test_scores_are_recorded_with_software_device_and_settings(make_run: MakeRun, stand_in: StandIn) -> None:
    folder = make_run()
    stand_in.behave(values={"a façade-0.mp4": 0.9, "a façade-1.mp4": 0.7})
    told = score(folder, Options(dimensions=("temporal_flickering",), methods=("small",)), quiet)
    assert told == {"done": 2}
    by_seed = {
        c.seed: score_of(c, "temporal_flickering") for c in cells_of(folder, "small", "temporal_flickering")
    }
    own = by_seed[0]
    assert own is not None and own.value == 0.9 and by_seed[1].value == 0.7
    assert own.metric.name == "vbench/temporal_flickering" and own.metric.scale == (0.6293, 1.0)
    assert own.made["torch"] == "2.5.1" and own.made["device"] == "cpu"
    assert "lossless" in own.made["staged"] and own.made["static filter"].startswith("none")


FILTERED = Options(dimensions=("temporal_flickering",), methods=("large",), static_filter="official")


def test_the_official_filter_leaves_out_what_is_not_static_and_stands_beside_the_number(
    make_run: MakeRun, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run()
    stand_in.behave(moving=["a façade-0.mp4"], values={"a façade-0.mp4": 0.9})
    assert score(folder, FILTERED, quiet) == {"done": 2}
    first, second = stand_in.asked
    assert (first["mode"], first["prompts"]) == (
        "static_filter",
        {"a façade": ["a façade-0.mp4", "a façade-1.mp4"]},
    )
    assert second["names"] == ["a façade-0.mp4"]  # renumbered: it was -1
    moving, static = (
        score_of(c, "temporal_flickering") for c in cells_of(folder, "large", second["dimension"])
    )
    assert moving is not None and moving.count == 0 and moving.reason.startswith("not static")
    assert static is not None and (static.value, static.count) == (0.9, 1)
    own = final.coverage(run.open_run(folder), "large", "temporal_flickering")
    assert (own.raw, own.scored, own.counted, own.due) == (0.9, 2, 1, 2) and own.is_complete
    assert command.main(["final", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "2 of 2 videos, 1 of them count" in said
    assert "static filter: official, the first 5 static of 2 videos a prompt; VBench samples 25" in said
    (row,) = (r for r in table.make(*read_run(folder)).dimensions if r.method == "large")
    assert row.values[0].value == 0.9 and "static filter official" in row.values[0].column.note


def test_the_official_filter_keeps_the_first_five_of_25_by_name(make_run: MakeRun, stand_in: StandIn) -> None:
    folder = make_run(prompts=("a façade",), seeds=tuple(range(100, 125)), methods=("large",))
    stand_in.behave(moving=["a façade-1.mp4"])
    assert score(folder, FILTERED, quiet) == {"done": 25}
    counted = {
        c.seed
        for c in cells_of(folder, "large", "temporal_flickering")
        if score_of(c, "temporal_flickering").count
    }
    # as files sort: -0, -1 (which moves), -10, -11, -12, -13
    assert counted == {100, 110, 111, 112, 113}
    assert stand_in.asked[1]["names"] == [f"a façade-{i}.mp4" for i in range(5)]
    own = final.coverage(run.open_run(folder), "large", "temporal_flickering", "standard")
    assert (own.scored, own.counted, own.due) == (25, 5, 25)
    with pytest.raises(UserError, match="sixth"):
        score(folder, replace(FILTERED, static_filter="none"), quiet)


def test_filtered_and_unfiltered_scores_never_stand_in_one_column(
    make_run: MakeRun, stand_in: StandIn
) -> None:
    folder = make_run()
    score(folder, replace(FILTERED, static_filter="none"), quiet)
    with pytest.raises(UserError, match="--again"):
        score(folder, FILTERED, quiet)
    assert score(folder, replace(FILTERED, again=True), quiet) == {"done": 2}
    before = len(stand_in.asked)
    assert score(folder, FILTERED, quiet) == {"done": 2} and len(stand_in.asked) == before


def test_where_nothing_is_static_there_is_no_score_and_no_second_process(
    make_run: MakeRun, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run()
    stand_in.behave(moving=["a façade-0.mp4", "a façade-1.mp4"])
    score(folder, FILTERED, quiet)
    assert len(stand_in.asked) == 1
    command.main(["final", str(folder)])
    said = capsys.readouterr().out
    assert "–  2 of 2 videos, 0 of them count  not static" in said
    assert "temporal_flickering 2/2, none of which counts" in said


def test_without_its_weights_the_official_filter_is_missing_with_the_sentence(
    make_run: MakeRun, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("SRBENCH_VBENCH_ENV", str(stand_in.place))
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(stand_in.place / "none"))
    folder = make_run()
    assert score(folder, FILTERED, quiet) == {"missing": 2}
    own = score_of(cells_of(folder, "large", "temporal_flickering")[0], "temporal_flickering")
    assert own is not None and "static_filter wants" in own.reason and "raft-things.pth" in own.reason
    assert score(folder, replace(FILTERED, static_filter="none"), quiet) == {"done": 2}
    # what is scored is not lost for what cannot be
    assert score(folder, replace(FILTERED, again=True), quiet) == {"done": 2}


def test_a_second_call_asks_nothing_and_one_more_video_alone_is_scored(
    make_run: MakeRun, stand_in: StandIn
) -> None:
    folder = make_run(seeds=(0,))
    score(folder, Options(dimensions=("object_class",)), quiet)
    assert len(stand_in.asked) == 2  # one process a method
    score(folder, Options(dimensions=("object_class",)), quiet)
    assert len(stand_in.asked) == 2
    lost = cells_of(folder, "large", "object_class")[0]
    run.write_cell(folder, lost.model_copy(update={"scores": ()}))
    score(folder, Options(dimensions=("object_class",)), quiet)
    assert stand_in.asked[2]["names"] == ["a dog-0.mp4"]


def test_a_dimension_without_weights_is_missing_with_the_sentence_and_others_are_scored(
    make_run: MakeRun, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(dimension: str, home: Path | None = None) -> str:
        return "object_class wants grit.pth" if dimension == "object_class" else ""

    monkeypatch.setattr("srbench.vbench.weights.lacking", lacking)
    folder = make_run(seeds=(0,))
    told = score(folder, Options(dimensions=("object_class", "imaging_quality")), quiet)
    assert told == {"missing": 4, "done": 6}
    gone = score_of(cells_of(folder, "large", "object_class")[0], "object_class")
    assert gone is not None and (gone.outcome, gone.value) == ("missing", None)
    assert gone.reason == "object_class wants grit.pth"


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ({"die": "no kernel image"}, "no kernel image"),
        ({"values": {"a dog-0.mp4": float("nan")}}, "no score"),
        ({"mean": float("nan")}, "no score"),
        ({"mean": 0.51}, "is not that of its videos"),
        ({"swallowed": ["RuntimeError: shapes"]}, "RuntimeError: shapes"),
        ({"drop": ["a dog-0.mp4", "a cat-0.mp4"], "mean": float("nan")}, "no score"),
    ],
)
def test_what_vbench_passes_over_is_a_failure_never_a_score(
    make_run: MakeRun, stand_in: StandIn, behaviour: dict[str, object], reason: str
) -> None:
    folder = make_run(seeds=(0,), methods=("large",))
    stand_in.behave(**behaviour)
    assert score(folder, Options(dimensions=("object_class",)), quiet) == {"failed": 2}
    for cell in cells_of(folder, "large", "object_class"):
        own = score_of(cell, "object_class")
        assert own is not None and own.value is None and reason in own.reason
    stand_in.behave()
    assert score(folder, Options(dimensions=("object_class",)), quiet) == {"done": 2}


def test_a_video_that_vbench_leaves_out_has_failed_and_the_others_stand(
    make_run: MakeRun, stand_in: StandIn
) -> None:
    stand_in.behave(drop=["a dog-0.mp4"])
    folder = make_run(seeds=(0,), methods=("large",))
    assert score(folder, Options(dimensions=("object_class",)), quiet) == {"failed": 1, "done": 1}


def test_a_color_not_detected_is_left_out_of_the_mean_and_is_no_gap(
    make_run: MakeRun, stand_in: StandIn
) -> None:
    stand_in.behave(drop=["a dog-0.mp4"], values={"a dog-1.mp4": 0.25})
    folder = make_run(methods=("large",))
    assert score(folder, Options(dimensions=("color",)), quiet) == {"done": 2}
    own = final.coverage(run.open_run(folder), "large", "color")
    assert (own.raw, own.scored, own.due) == (0.25, 2, 2) and own.is_complete
    record, cells = read_run(folder)
    (row,) = table.make(record, cells).dimensions
    assert row.values[0].value == 0.25


def test_scores_of_another_torch_are_not_mixed_in_unless_all_are_made_again(
    make_run: MakeRun, stand_in: StandIn
) -> None:
    folder = make_run(seeds=(0,))
    score(folder, Options(dimensions=("color",), methods=("large",)), quiet)
    stand_in.behave(torch="2.15.0")
    with pytest.raises(UserError, match=r"torch 2\.15\.0"):
        score(folder, Options(dimensions=("color",), methods=("small",)), quiet)
    with pytest.raises(UserError, match=r"torch 2\.15\.0"):
        score(folder, Options(dimensions=("color",), methods=("small",), again=True), quiet)
    assert len(stand_in.asked) == 1, "told before anything is computed, not after"
    assert score(folder, Options(dimensions=("color",), again=True), quiet) == {"done": 2}


def test_scores_of_another_detector_are_refused_before_anything_is_computed(
    make_run: MakeRun, stand_in: StandIn
) -> None:
    folder = make_run(seeds=(0,))
    score(folder, Options(dimensions=("color", "imaging_quality"), methods=("large",)), quiet)
    stand_in.behave(detectron2="0.6+gabcdef")
    before = len(stand_in.asked)
    small = Options(dimensions=("color",), methods=("small",))
    with pytest.raises(UserError, match=r"color by detectron2 0\.6\+gabcdef(.|\n)*detectron2 0\.6\n"):
        score(folder, small, quiet)
    assert len(stand_in.asked) == before
    # what no detector makes does not depend on it
    assert score(folder, replace(small, dimensions=("imaging_quality",)), quiet) == {"done": 3}


def test_a_mixture_that_is_there_already_is_told(make_run: MakeRun, stand_in: StandIn) -> None:
    """As an interrupted `again` leaves it: nothing is lacking, and yet two versions stand in one column."""
    folder = make_run(seeds=(0,))
    score(folder, Options(dimensions=("color",)), quiet)
    (cell,) = cells_of(folder, "small", "color")
    other = [s.model_copy(update={"made": s.made | {"torch": "2.4.0"}}) for s in cell.scores]
    write_cell(folder, cell.model_copy(update={"scores": tuple(other)}))
    with pytest.raises(UserError, match=r"torch 2\.[45]"):
        score(folder, Options(dimensions=("color",)), quiet)


def test_methods_of_one_name_are_told_apart_by_their_labels(make_run: MakeRun, stand_in: StandIn) -> None:
    """`-m method.srdiffusion.delta=0.01,0.03` puts two methods of one name into one run."""
    folder = make_run(seeds=(0,), methods=("large", "δ=0.01", "δ=0.03"))
    record, _ = read_run(folder)
    methods = [m if m.is_reference else m.model_copy(update={"name": "srdiffusion"}) for m in record.methods]
    write_json(folder / "run.json", record.model_copy(update={"methods": tuple(methods)}))
    for path in (folder / "cells").glob("*.json"):
        cell = read_cell(path)
        name = "large" if cell.is_reference else "srdiffusion"
        write_cell(folder, cell.model_copy(update={"method": name}))
    assert score(folder, Options(dimensions=("color",)), quiet) == {"done": 3}
    job = open_run(folder)
    assert job.methods == ("large", "δ=0.01", "δ=0.03")
    assert final.coverage(job, "δ=0.03", "color").is_complete
    assert {c.method for c in read_run(folder)[1]} == {"large", "srdiffusion"}, "records keep their names"


def test_without_its_environment_nothing_is_begun(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRBENCH_VBENCH_ENV", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"srbench vbench setup"):
        score(make_run(suite="shapes"), Options(), quiet)


def test_more_than_five_seeds_are_refused_since_vbench_would_not_look_at_them(
    make_run: MakeRun, stand_in: StandIn
) -> None:
    with pytest.raises(UserError, match="sixth"):
        score(make_run(prompts=("a dog",), seeds=tuple(range(6))), Options(), quiet)


def test_prompts_of_another_suite_go_by_custom_input_under_numbered_names_and_have_no_total(
    make_run: MakeRun, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(prompts=("a/b", "x" * 300), seeds=(0,), methods=("large",), suite="prompts")
    assert command.main(["score", str(folder), "--dimension", "temporal_flickering"]) == 0
    assert "no total: of 16 dimensions only 9 take other prompts than VBench's" in capsys.readouterr().out
    score(folder, Options(dimensions=("temporal_flickering",)), quiet)
    (asked,) = stand_in.asked
    assert asked["mode"] == "custom_input"
    assert asked["prompts"] == {"video00000.mp4": "a/b", "video00001.mp4": "x" * 300}
    with pytest.raises(UserError, match="its own prompts only"):
        score(folder, Options(dimensions=("color",)), quiet)


def test_a_color_found_in_no_video_is_no_number_in_the_report_and_says_why(
    make_run: MakeRun, stand_in: StandIn
) -> None:
    folder = make_run(prompts=("a dog",), methods=("large",))
    stand_in.behave(drop=["a dog-0.mp4", "a dog-1.mp4"], mean=None)
    assert score(folder, Options(dimensions=("color",)), quiet) == {"done": 2}
    record, cells = read_run(folder)
    (row,) = table.make(record, list(cells)).dimensions
    (value,) = row.values
    assert (value.value, value.outcome) == (None, "missing")
    assert value.reason.startswith("none of the videos counts in it")


def test_before_any_score_the_command_says_what_could_be_scored_and_how(
    make_run: MakeRun, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(prompts=("a dog",))
    assert command.main(["final", str(folder)]) == 0
    said = capsys.readouterr().out
    assert f"nothing is scored yet of object_class, color: srbench vbench score {folder}" in said


def test_a_resumed_run_keeps_what_vbench_scored(make_run: MakeRun, stand_in: StandIn) -> None:
    folder = make_run(prompts=("a dog",), seeds=(0,), methods=("large",))
    score(folder, Options(dimensions=("color",)), quiet)
    _, cells = read_run(folder)
    (again,) = score_all(cells, None, (), lambda cell: iter(()))
    assert again.scores == cells[0].scores != ()


def test_the_command_says_what_is_scored_and_why_there_is_no_total(
    make_run: MakeRun, stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(seeds=(0,))
    assert command.main(["score", str(folder), "--dimension", "object_class"]) == 0
    said = capsys.readouterr().out
    assert "object_class              0.500000  2 of 2 videos" in said
    assert "a subset, 4 of 944 prompts × 1 of 5 videos: not comparable" in said
    assert "no total: incomplete are subject_consistency 0/1" in said
    assert "static filter" not in said and "videos of 0.38 s in VBench" in said
