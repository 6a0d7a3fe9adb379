"""The paper's figures from records: drawn where the data is there, else they say what makes it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from srbench import video
from srbench.analysis import roles, table
from srbench.paper import curves, figures, frames, sources
from srbench.store.records import MethodRecord, Score, link_name

ALWAYS = {"kind": "always"}
TEACACHE = {"kind": "teacache", "threshold": 0.14}
PAB = {"kind": "pab", "skip_range": 8, "timestep_range": [100.0, 950.0], "hooks": "self", "state": "shared"}
DIMENSIONS = {"object_class": "semantic", "multiple_objects": "semantic", "flicker": "quality"}


def alone(model, *accelerators, **more):
    return [{"denoiser": {"model": model, "accelerators": list(accelerators), **more}, "until": ALWAYS}]


def switch(until, *accelerators, **more):
    sage = {"attention": "sage"} if more else {}
    large = {"model": "large", "accelerators": [], **sage}
    return [{"denoiser": large, "until": until}, *alone("small", *accelerators, **sage)]


def srd(delta):
    return {"kind": "srdiffusion", "delta": delta, "min_steps": 5, "signal": "model_output"}


def noisy(step):
    until = {"kind": "fixed_step", "step": step}
    disturbed = alone("large", disturb={"scale": 0.3, "bias": 0.1, "seed": 0})
    return [{"denoiser": {"model": "large"}, "until": until}, *disturbed]


PATHS = {  # path, after how many steps it leaves the large model
    "large": (alone("large"), 50),
    "small": (alone("small"), 0),
    "fixed_5": (switch({"kind": "fixed_step", "step": 5}), 5),
    "fixed_10": (switch({"kind": "fixed_step", "step": 10}), 10),
    "srd_002": (switch(srd(0.002)), 16),
    "srd_01": (switch(srd(0.01)), 10),
    "srd_tea": (switch(srd(0.01), TEACACHE), 10),
    "srd_tea_sage": (switch(srd(0.01), TEACACHE, sage=True), 10),
    "pab": (alone("large", PAB), 50),
    "tea": (alone("large", TEACACHE), 50),
    "noise_02": (noisy(2), 50),
    "noise_40": (noisy(40), 50),
}
FAMILY = {"kind": "wan", "height": 16, "width": 16, "frames": 5, "fps": 8}


def records(make, family="wan21_480p", scale="full", prompts=3, names=tuple(PATHS), **changes):
    """Methods over a few prompts with one seed; odd prompts have one dimension more."""
    run = make.run(
        family=family,
        experiment="fig8_9",
        methods=tuple(
            MethodRecord(
                name=n, label=n, id=f"id-{n}", is_reference=n == "large", path=PATHS[n][0], steps=None
            )
            for n in names
        ),
        resolved={"family": FAMILY | {"scale": scale}, "suite": {"kind": "vbench"}},
        **changes,
    )
    cells = [cell_of(make, n, p) for n in names for p in range(prompts)]
    return run, cells, table.make(run, cells)


def cell_of(make, name, prompt):
    path, leaves = PATHS[name]
    at = min(leaves + prompt, 50) if name.startswith("srd") else leaves
    scores = () if name == "large" else make.scores(20.0 + prompt + 0.1 * leaves)
    for dimension, group in DIMENSIONS.items():
        if dimension != "multiple_objects" or prompt % 2:
            metric = make.dimension(f"vbench/{dimension}", group)
            scores += (Score(metric=metric, value=0.5 + 0.004 * leaves),)
    trace = make.trace(at)
    if name == "large":
        steps = (
            dataclasses.replace(s, change={"model_output": 0.5 / (s.index + 1)} if s.index else None)
            for s in trace.steps
        )
        trace = dataclasses.replace(trace, steps=tuple(steps))
    return make.cell(name, prompt, 0, at, path=path, scores=scores, trace=trace)


@pytest.fixture
def place(tmp_path: Path, make) -> Path:
    """A run's folder with a video for every cell: each of one colour."""
    folder = tmp_path / "run"
    for i, name in enumerate(PATHS):
        for prompt in range(3):
            path = folder / "videos" / link_name(prompt, 0, name, f"id-{name}")
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                video.write_lossless(path, np.full((5, 16, 16, 3), 10 * i, np.uint8), 8)
    return folder


@pytest.fixture
def only(monkeypatch):
    """Leaves these figures alone: drawing all takes seconds."""

    def leave(*names):
        chosen = tuple(p for p in figures.PLANS if p.name in names)
        assert len(chosen) == len(names)
        monkeypatch.setattr(figures, "PLANS", chosen)

    return leave


def drawn(folder, *given, places=()):
    return {f.name: f for f in figures.draw(folder, given, places)}


def test_every_figure_is_drawn_from_a_run_that_has_its_data(make, tmp_path, place):
    found = drawn(tmp_path / "figures", records(make), places=[place])
    missing = {name: f.missing for name, f in found.items() if f.missing}
    assert list(missing) == ["figure_10"], missing
    for name in found.keys() - {"figure_10"}:
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"/CIDFontType2" in (tmp_path / "figures" / f"{name}.pdf").read_bytes()
        assert found[name].size[0] == 990
    assert "drawn at random (by seed 0) from the 3" in found["figure_8_9"].caption
    assert (
        "variance" in found["figure_6"].caption and "0 of which never switched" in found["figure_6"].caption
    )


def test_without_videos_and_methods_it_says_what_is_lacking_and_what_makes_it(make, tmp_path, only):
    only("figure_1", "figure_5", "figure_11")
    (tmp_path / "figure_11.png").write_bytes(b"of an earlier report")
    found = drawn(tmp_path, records(make, names=("large", "small", "noise_02", "noise_40")))
    assert "+experiment=fig11" in found["figure_11"].missing
    assert "6.22×" in found["figure_5"].missing
    assert not (tmp_path / "figure_11.png").exists()
    assert not found["figure_1"].missing
    assert "No frames: only records were given" in found["figure_1"].caption


def test_no_run_at_all(tmp_path):
    found = drawn(tmp_path)
    assert [name for name, f in found.items() if not f.missing] == ["printed_switches"]
    assert found["figure_3"].missing.startswith("no run was given; `python -m srbench +experiment=fig3`")


def test_the_papers_numbers_stand_beside_its_own_models_only(make, tmp_path, only):
    only("figure_6", "figure_7", "switch_curve")
    captions = [f.caption for f in drawn(tmp_path / "wan", records(make)).values()]
    assert all("latencies imply" in c or "The paper prints" in c for c in captions)
    for i, own in enumerate((records(make, "shapes"), records(make, scale="tiny"))):
        captions = [f.caption for f in drawn(tmp_path / str(i), own).values()]
        assert not any("latencies imply" in c or "The paper prints" in c for c in captions)


def test_random_weights_are_named_in_the_figure(make):
    note = "random weights (scale: tiny): this run shows that the plumbing works"
    tiny, real = (
        sources.Source.of(*records(make, scale=s, warnings=w), None, "")
        for s, w in (("tiny", (note, "another")), ("full", ("another",)))
    )
    assert tiny.title == "wan21_480p, random weights: plumbing only"
    assert sources.note_of([tiny]) == "random weights: plumbing only (wan21_480p) · another"
    assert (real.title, sources.note_of([real])) == ("wan21_480p", "another")


def test_several_runs_share_panels_and_have_frames_of_their_own(make, tmp_path, place, only):
    only("figure_7", "figure_11")
    one, other = records(make), records(make, "shapes")
    found = drawn(tmp_path, one, other, places=[place, place])
    assert list(found) == ["figure_7", "figure_11-wan21_480p", "figure_11-shapes"]
    assert found["figure_7"].size[1] > 1.7 * drawn(tmp_path, one)["figure_7"].size[1]


def test_a_method_that_was_skipped_keeps_its_row_and_says_why(make, tmp_path, place, only):
    only("figure_5")
    run, cells, _ = records(make)
    cells = [
        c.model_copy(update={"outcome": "skipped", "reason": "no kernel here"})
        if c.method == "srd_tea_sage"
        else c
        for c in cells
    ]
    source = sources.Source.of(run, cells, table.make(run, cells), place, "")
    method = source.of_kind("srd+teacache+sage")
    assert not method.cells and source.why(method) == "skipped: no kernel here"
    assert not drawn(tmp_path, (run, cells, table.make(run, cells)), places=[place])["figure_5"].missing


@pytest.mark.parametrize(
    ("setting", "steps"),
    [
        ("wan21_480p", {0.002: 16.0, 0.01: 10.1, 0.03: 7.6}),
        ("wan21_720p", {0.01: 9.4}),
        ("cogvideox", {0.008: 19.6, 0.01: 15.2, 0.015: 10.5, 0.03: 6.1}),
    ],
)
def test_switch_steps_that_the_latencies_imply(setting, steps):
    assert curves.printed_by_delta(setting) == pytest.approx(steps, abs=0.06)


def test_a_sample_is_the_same_each_time_and_has_every_methods_video(make, place):
    source = sources.Source.of(*records(make), place, "")
    shown = [source.of_kind(k) for k in ("reference", "srd")]
    keys, total = frames.sample(source.videos, shown)
    assert total == 3 and keys == frames.sample(source.videos, shown)[0]
    (place / "videos" / link_name(keys[0][0], 0, "srd_01", "id-srd_01")).unlink()
    assert keys[0] not in frames.sample(source.videos, shown)[0]


def test_frames_are_taken_from_first_to_last(tmp_path, make):
    ramp = np.repeat(np.arange(9, dtype=np.uint8) * 20, 16 * 16 * 3).reshape(9, 16, 16, 3)
    path = tmp_path / "videos" / link_name(0, 0, "large", "id-large")
    path.parent.mkdir(parents=True)
    video.write_lossless(path, ramp, 8)
    found = frames.Videos(make.run(), tmp_path).frames(make.cell("large", 0, 0), 3)
    assert found.pictures[:, 0, 0, 0].tolist() == [0, 80, 160]
    assert found.times == ["0.0 s", "0.5 s", "1.0 s"]


def test_large_frames_are_made_smaller_by_means():
    frame = np.zeros((480, 832, 3), np.uint8)
    frame[::2] = 100
    small = frames.smaller(frame)
    assert small.shape == (120, 208, 3) and (small == 50).all()


def test_a_video_of_another_length_than_recorded_is_not_taken(make, place):
    cell = make.cell("large", 0, 0, video_bytes=3)
    assert frames.Videos(make.run(), place).path(cell) is None


def test_kinds_come_from_paths(make):
    source = sources.Source.of(*records(make), None, "")
    assert {m.row.method: sources.kind(m) for m in source.found} == {
        "large": "reference",
        "small": "small",
        "fixed_5": "fixed",
        "fixed_10": "fixed",
        "srd_002": "srd",
        "srd_01": "srd",
        "srd_tea": "srd+teacache",
        "srd_tea_sage": "srd+teacache+sage",
        "pab": "pab",
        "tea": "teacache",
        "noise_02": "other",
        "noise_40": "other",
    }
    assert source.of_kind("srd").row.method == "srd_01", "the paper's, of several"


def test_noise_in_the_large_model_is_no_fixed_switch():
    assert roles.role(False, noisy(10), None) == "other"
    assert roles.role(False, PATHS["fixed_10"][0], None) == "fixed"
