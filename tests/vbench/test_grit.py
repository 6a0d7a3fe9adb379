"""VBench's four dimensions of objects with detectron2 and GRiT themselves; only the weights are stand-ins."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from srbench.store.records import read_run, write_cell
from srbench.vbench import __main__ as command
from srbench.vbench import environment, final, run, weights
from srbench.vbench.run import Options, score, score_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(environment.lacking()), reason="VBench's environment is not built"),
    pytest.mark.skipif(not weights.has_detectron(), reason="VBench's environment has no detectron2"),
]
HERE = Path(__file__).parent
DARK, BRIGHT = 30, 220  # of frames in which the stand-in finds nothing, and three dogs
BROKEN = """
import torchvision.ops

def roi_align(*_, **__):
    raise RuntimeError("CUDA error: no kernel image is available")

torchvision.ops.roi_align = roi_align
"""
RELATION = {"object_a": "dog", "object_b": "cat", "relationship": "on the left of"}
ASKED = [
    {
        "prompt_en": "a red dog",
        "dimension": ["object_class", "color"],
        "auxiliary_info": {"object_class": {"object": "dog"}, "color": {"color": "red"}},
    },
    {
        "prompt_en": "a dog on the left of a cat",
        "dimension": ["multiple_objects", "spatial_relationship"],
        "auxiliary_info": {
            "multiple_objects": {"object": "dog and dog"},
            "spatial_relationship": {"spatial_relationship": RELATION},
        },
    },
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of weights with GRiT's, 0.8 GB: removed afterwards."""
    made = tmp_path_factory.mktemp("weights")
    make = [str(environment.python()), str(HERE / "stand_in_grit.py"), str(made)]
    subprocess.run(make, check=True, env=environment.clean(made), cwd=made, capture_output=True)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, home: Path, asked_run: Callable[..., Path]) -> Path:
    """Two prompts, two videos each of 16 frames: of seed 0 three are bright, of seed 1 none."""
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(home))

    def pixels(seed: int) -> np.ndarray:
        made = np.full((16, 64, 128, 3), DARK, np.uint8)
        made[5:8] = DARK if seed else BRIGHT
        return made

    return asked_run(ASKED, pixels)


def test_four_dimensions_by_the_command_give_what_counting_by_hand_gives(
    asked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["score", str(asked), "--dimension", *weights.GRIT]) == 0
    assert "8 done" in capsys.readouterr().out
    cells = read_run(asked)[1]
    found = {
        d: [(s.value, s.count) for seed in (0, 1) for c in cells if c.seed == seed and (s := score_of(c, d))]
        for d in weights.GRIT
    }
    # by the mean over frames; color's over the videos in which a coloured dog was seen
    assert found == {
        "object_class": [(3 / 16, 16), (0, 16)],
        "multiple_objects": [(3 / 16, 16), (0, 16)],
        "color": [(1, 1), (0, 0)],
        "spatial_relationship": [(3 / 16, 16), (0, 16)],  # the left and the right half do not overlap
    }
    job = run.open_run(asked)
    raws = {d: final.coverage(job, "large", d).raw for d in weights.GRIT}
    assert raws == {d: 1.0 if d == "color" else 3 / 32 for d in weights.GRIT}
    assert all(s.made["detectron2"].startswith("0.") for c in cells for s in c.scores)
    # all of it is there: nothing is computed again
    assert command.main(["score", str(asked), "--dimension", *weights.GRIT]) == 0
    said = capsys.readouterr().out
    assert said.count("2 scored already") == 4 and "scored now" not in said


def test_of_a_color_that_is_found_nowhere_there_is_no_number(asked: Path) -> None:
    """VBench divides by the number of videos with the object in them."""
    for cell in read_run(asked)[1]:
        if cell.seed == 0:
            write_cell(asked, cell.model_copy(update={"outcome": "failed", "reason": "gone"}))
    assert score(asked, Options(dimensions=("color",))) == {"done": 1}
    own = final.coverage(run.open_run(asked), "large", "color")
    assert (own.raw, own.scored, own.counted) == (None, 1, 0) and own.reason


def test_a_checkpoint_that_leaves_parameters_random_is_refused(
    asked: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "partial"
    shutil.copytree(home / "bert-base-uncased", other / "bert-base-uncased")
    (other / "grit_model").mkdir()
    state = torch.load(home / "grit_model" / "grit_b_densecap_objectdet.pth", weights_only=True)["model"]
    few = {name: value for name, value in state.items() if "box_predictor" not in name}
    torch.save({"model": few}, other / "grit_model" / "grit_b_densecap_objectdet.pth")
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(other))
    assert score(asked, Options(dimensions=("object_class",))) == {"failed": 2}
    own = score_of(read_run(asked)[1][0], "object_class")
    assert own is not None and own.value is None and "roi_heads.box_predictor" in own.reason


def test_frames_on_which_the_detector_fails_are_a_failure_and_no_score(
    asked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU that torchvision was not built for; VBench takes such a frame for an empty one."""
    mine, real = tmp_path / "env", environment.folder()
    (mine / "bin").mkdir(parents=True)
    (mine / "lib").symlink_to(real / "lib")
    (tmp_path / "stubs").mkdir()
    (tmp_path / "stubs" / "sitecustomize.py").write_text(BROKEN)
    interpreter = mine / "bin" / "python"
    interpreter.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path / "stubs"} exec {real}/bin/python "$@"\n')
    interpreter.chmod(0o755)
    monkeypatch.setenv("SRBENCH_VBENCH_ENV", str(mine))
    assert score(asked, Options(dimensions=("object_class",))) == {"failed": 2}
    own = score_of(read_run(asked)[1][0], "object_class")
    assert own is not None and "failed on 32 frames" in own.reason and "no kernel image" in own.reason
