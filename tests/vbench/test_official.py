"""VBench itself, in its own environment, through the whole path: skipped where that is not built."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from srbench import video
from srbench.store.objects import VIDEO, Store
from srbench.store.records import read_run, read_run_record, write_cell, write_json
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
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_run) -> Iterator[Path]:
    """A run of VBench's kind with moving pictures of two lengths, and weights that are random."""
    home = tmp_path / "weights"
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(home))
    made = [str(environment.python()), str(HERE / "stand_in_weights.py"), str(home)]
    subprocess.run(made, check=True, env=environment.clean(), capture_output=True)
    info = tmp_path / "info.json"
    every = [*PRETENDED, "temporal_flickering"]
    lines = [
        {
            "prompt_en": p,
            "dimension": every,
            "auxiliary_info": {"appearance_style": {"appearance_style": "oil"}},
        }
        for p in ("a dog", "A Dog")
    ]
    info.write_text(json.dumps(lines))
    folder = make_run(prompts=("a dog", "A Dog"), methods=("large",))
    record = read_run_record(folder)
    resolved = record.resolved | {"suite": {"kind": "vbench", "info": str(info)}}
    write_json(folder / "run.json", record.model_copy(update={"resolved": resolved}))
    store = Store((folder / record.store).resolve())
    rng = np.random.default_rng(0)
    for i, cell in enumerate(read_run(folder)[1]):
        frames = 7 if cell.seed else 12
        wide = rng.integers(0, 256, (64, 96 + frames, 3), np.uint8)
        pixels = np.stack([wide[:, t : t + 96] for t in range(frames)])
        path = store.put(f"{i:064}", VIDEO, lambda p, own=pixels: video.write_lossless(p, own, 8))
        write_cell(folder, cell.model_copy(update={"key": f"{i:064}", "video": path.stem}))
    yield folder


def test_dimensions_with_pretended_weights_run_to_the_end(pretended: Path) -> None:
    every = (*PRETENDED, "temporal_flickering")
    told = score(pretended, Options(dimensions=every))
    assert told == {"done": 4 * len(every)}
    job = run.open_run(pretended)
    counts = {d: sorted({s.count for c in job.cells if (s := score_of(c, d))}) for d in every}
    assert counts["subject_consistency"] == counts["background_consistency"] == [6, 11]
    assert counts["appearance_style"] == [7, 12] and counts["motion_smoothness"] == [1]
    assert all(final.coverage(job, "large", d).is_complete for d in every)


def test_without_weights_each_dimension_says_where_they_belong(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    told = score(shipped, Options(dimensions=("motion_smoothness", "imaging_quality"), methods=("large",)))
    assert told == {"missing": 2}
    own = score_of(read_run(shipped)[1][0], "motion_smoothness")
    assert own is not None and str(tmp_path / "amt_model" / "amt-s.pth") in own.reason
    assert weights.lacking("temporal_flickering") == ""
