"""VBench itself, in its own environment, through the whole path: skipped where that is not built."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from srbench import video
from srbench.store.objects import Store
from srbench.store.records import read_run, read_run_record, write_cell
from srbench.vbench import environment, final, run, weights
from srbench.vbench.run import Options, score, score_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(environment.lacking()), reason="VBench's environment is not built"),
]
HERE = Path(__file__).parent
# Dimensions whose layout can be pretended in little time and space; scores then mean nothing.
PRETENDED = (
    "subject_consistency",
    "background_consistency",
    "motion_smoothness",
    "dynamic_degree",
    "aesthetic_quality",
    "imaging_quality",
    "appearance_style",
)


VICLIP = ("temporal_style", "overall_consistency")
# Dimensions whose networks are pretended; VBench's own code around them is not.
BY_NETWORK = (
    "object_class",
    "multiple_objects",
    "human_action",
    "color",
    "spatial_relationship",
    "scene",
    *VICLIP,
)
NETWORKS = (
    "vbench.third_party.grit_model",
    "vbench.third_party.tag2Text.tag2text",
    "vbench.third_party.ViCLIP.viclip",
    "vbench.third_party.umt.models",
    "vbench.third_party.umt.models.modeling_finetune",
)
SITE = """
import importlib.abc, importlib.util, sys

class Pretended(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in {names!r}:
            return importlib.util.spec_from_file_location(name, {stub!r}, submodule_search_locations=[])

sys.meta_path.insert(0, Pretended())
"""
RELATION = {"object_a": "dog", "object_b": "cat", "relationship": "on the left of"}
# In the form of VBench's own list.
ASKED = [
    {
        "prompt_en": "a red dog",
        "dimension": ["object_class", "color"],
        "auxiliary_info": {"object_class": {"object": "dog"}, "color": {"color": "red"}},
    },
    {
        "prompt_en": "a dog and a cat",
        "dimension": ["multiple_objects", "spatial_relationship"],
        "auxiliary_info": {
            "multiple_objects": {"object": "dog and cat"},
            "spatial_relationship": {"spatial_relationship": RELATION},
        },
    },
    {"prompt_en": "a person is riding a bike", "dimension": ["human_action"]},
    {
        "prompt_en": "kitchen",
        "dimension": ["scene", *VICLIP],
        "auxiliary_info": {"scene": {"scene": {"scene": "kitchen"}}},
    },
]


def flickering(pixels: np.ndarray) -> float:
    """1 − mean |frame − next| / 255, as VBench defines it, of uint8 (frames, height, width, 3)."""
    change = np.abs(np.diff(pixels.astype(np.float64), axis=0))
    return float(1 - change.mean() / 255)


def directly(file: Path) -> float:
    """VBench's own function on one file, called in its environment without any of this."""
    code = "import sys; from vbench.temporal_flickering import cal_score; print(repr(cal_score(sys.argv[1])))"
    command = [str(environment.python()), "-c", code, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment.clean())
    return float(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the family that srbench ships: one prompt, six steps, large and small."""
    place = tmp_path_factory.mktemp("shipped")
    words = [
        "family=shapes",
        "suite=shapes",
        "method=[large,small]",
        "family.steps=6",
        "suite.prompts=1",
        "suite.seeds=1",
    ]
    words += [f"results={place}/results", f"store={place}/store", "metric=[psnr]"]
    subprocess.run([sys.executable, "-m", "srbench", *words], check=True, cwd=HERE.parents[1])
    return next((place / "results").glob("*/*/run.json")).parent


def test_the_shipped_family_through_the_whole_path_equals_a_direct_call(shipped: Path) -> None:
    told = score(shipped, Options(dimensions=("temporal_flickering",), keep=True))
    assert told == {"done": 2}
    record, cells = read_run(shipped)
    store = Store((shipped / record.store).resolve())
    for cell in cells:
        own = score_of(cell, "temporal_flickering")
        master = store.get(cell.key)
        assert own is not None and own.value is not None and master is not None
        (staged,) = (shipped / "vbench" / "encoded").glob(f"{master.stem}*")
        assert own.value == directly(staged)
        # the staged file is lossless, so it is the master's own flickering too; VBench adds in float32
        assert own.value == pytest.approx(flickering(video.read(master)[0]), abs=1e-6)
        assert own.made["vbench"] == "0.1.5" and own.made["torch"].startswith("2.")
    assert score(
        shipped,
        Options(dimensions=("temporal_flickering",)),
        lambda said: pytest.fail(said) if "scored now" in said else None,
    ) == {"done": 2}


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked_run: Callable[..., Path]) -> Path:
    """A run of VBench's kind with moving pictures of two lengths, and weights that are random."""
    home = tmp_path / "weights"
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(home))
    made = [str(environment.python()), str(HERE / "stand_in_weights.py"), str(home)]
    subprocess.run(made, check=True, env=environment.clean(), capture_output=True)
    every = [*PRETENDED, "temporal_flickering"]
    style = {"appearance_style": {"appearance_style": "oil"}}
    rng = np.random.default_rng(0)

    def moving(seed: int) -> np.ndarray:
        frames = 7 if seed else 12
        wide = rng.integers(0, 256, (64, 96 + frames, 3), np.uint8)
        return np.stack([wide[:, t : t + 96] for t in range(frames)])

    prompts = ("a dog", "A Dog")
    return asked_run([{"prompt_en": p, "dimension": every, "auxiliary_info": style} for p in prompts], moving)


def test_dimensions_with_pretended_weights_run_to_the_end(pretended: Path) -> None:
    every = (*PRETENDED, "temporal_flickering")
    told = score(pretended, Options(dimensions=every))
    assert told == {"done": 4 * len(every)}
    job = run.open_run(pretended)
    counts = {d: sorted({s.count for c in job.cells if (s := score_of(c, d))}) for d in every}
    assert counts["subject_consistency"] == counts["background_consistency"] == [6, 11]
    assert counts["appearance_style"] == [7, 12] and counts["motion_smoothness"] == [1]
    assert all(final.coverage(job, "large", d).is_complete for d in every)


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked_run: Callable[..., Path]) -> Path:
    """VBench with four networks pretended, and a run of bright and dark videos.

    Seed 0: 12 grey frames from 40 to 220; seed 1: 7 frames of 30.
    """
    mine, real = tmp_path / "env", environment.folder()
    place = mine / "lib" / "python3.11" / "site-packages"
    (place / "detectron2").mkdir(parents=True)
    for package in ("vbench", "clip"):
        (place / package).symlink_to(next(real.glob(f"lib/python*/site-packages/{package}")))
    interpreter = mine / "bin" / "python"
    interpreter.parent.mkdir()
    interpreter.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path / "stubs"} exec {real}/bin/python "$@"\n')
    interpreter.chmod(0o755)
    checkpoint = tmp_path / "stubs" / "detectron2" / "checkpoint.py"  # of the pretended GRiT none is loaded
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("class DetectionCheckpointer:\n    _load_model = None\n")
    (tmp_path / "stubs" / "sitecustomize.py").write_text(
        SITE.format(names=NETWORKS, stub=str(HERE / "stand_in_networks.py"))
    )
    monkeypatch.setenv("SRBENCH_VBENCH_ENV", str(mine))
    home = tmp_path / "weights"
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(home))
    files = {f.path: f for d in BY_NETWORK for f in weights.of(d)}.values()
    weights.fetch([f for f in files if f.source.startswith("env:")], home)
    for file in weights.absent(files, home):
        (home / file.path).parent.mkdir(parents=True, exist_ok=True)
        torch.save({}, home / file.path)

    def grey(seed: int) -> np.ndarray:
        levels = np.full(7, 30.0) if seed else np.linspace(40, 220, 12)
        return np.tile(levels.astype(np.uint8)[:, None, None, None], (1, 64, 96, 3))

    return asked_run(ASKED, grey)


def test_vbenchs_own_code_around_four_pretended_networks_gives_what_counting_by_hand_gives(
    networks: Path,
) -> None:
    assert score(networks, Options(dimensions=BY_NETWORK)) == {"done": 16}
    cells = read_run(networks)[1]
    found = {
        d: [(s.value, s.count) for seed in (0, 1) for c in cells if c.seed == seed and (s := score_of(c, d))]
        for d in BY_NETWORK
    }
    # 16 frames are taken of 12, the last one five times: 14 not dark, 10 of them bright
    assert found["object_class"] == [(14 / 16, 16), (0, 16)]
    assert found["multiple_objects"] == [(10 / 16, 16), (0, 16)]
    assert found["color"] == [(pytest.approx(10 / 14), 1), (0, 0)]
    # boxes that overlap by 1/6, where 1/10 is allowed: 0.6 a bright frame
    assert found["spatial_relationship"] == [(pytest.approx(0.6 * 10 / 16), 16), (0, 16)]
    assert found["human_action"] == [(1, 1), (0, 1)]
    assert found["scene"] == [(11 / 16, 16), (0, 16)]
    assert all(-1 <= v <= 1 and n == 1 for d in VICLIP for v, n in found[d])
    job = run.open_run(networks)
    assert all(final.coverage(job, "large", d).is_complete for d in BY_NETWORK)


def test_errors_that_object_class_swallows_are_a_failure_and_no_score(
    networks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRBENCH_TEST_DETECTOR", "breaks")
    assert score(networks, Options(dimensions=("object_class",))) == {"failed": 2}
    own = score_of(read_run(networks)[1][0], "object_class")
    assert own is not None and "failed on 10 frames" in own.reason and "no kernel image" in own.reason


def test_a_color_found_in_none_of_the_videos_given_is_no_failure(networks: Path) -> None:
    """VBench divides by 0 there; a run that goes on may well have only such a video left."""
    for cell in read_run(networks)[1]:
        if cell.seed == 0:
            write_cell(networks, cell.model_copy(update={"outcome": "failed", "reason": "gone"}))
    assert score(networks, Options(dimensions=("color",))) == {"done": 1}
    own = final.coverage(run.open_run(networks), "large", "color")
    assert (own.raw, own.scored, own.counted) == (None, 1, 0)


def test_the_official_static_filter_keeps_what_stands_still(pretended: Path) -> None:
    """By VBench's own class; RAFT's weights are random, so the verdict is its threshold's on any number."""
    asked = Options(dimensions=("temporal_flickering",), static_filter="official")
    assert score(pretended, asked) == {"done": 4}
    cells = read_run(pretended)[1]
    made = {s.made["static filter"] for c in cells if (s := score_of(c, "temporal_flickering"))}
    assert made == {"official, the first 5 static of 2 videos a prompt; VBench samples 25"}
    for cell in cells:
        own = score_of(cell, "temporal_flickering")
        assert own is not None and own.value is not None
        if own.count:  # the number itself is the one without a filter
            master = Store((pretended / read_run_record(pretended).store).resolve()).get(cell.key)
            assert master is not None
            assert own.value == pytest.approx(flickering(video.read(master)[0]), abs=1e-6)
        else:
            assert own.reason == run.NOT_STATIC


def test_without_weights_each_dimension_says_where_they_belong(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    told = score(shipped, Options(dimensions=("motion_smoothness", "imaging_quality"), methods=("large",)))
    assert told == {"missing": 2}
    own = score_of(read_run(shipped)[1][0], "motion_smoothness")
    assert own is not None and str(tmp_path / "amt_model" / "amt-s.pth") in own.reason
    assert weights.lacking("temporal_flickering") == ""
