"""A run of VBench's prompts as records, and an environment whose interpreter only pretends.

The stand-in is called as the real one is, reads the same job and writes the same files, so
what is tested is everything but VBench; the real one is in test_official.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srbench import video
from srbench.store.objects import VIDEO, Store
from srbench.store.records import CellRecord, MethodRecord, RunRecord, read_run, write_cell, write_json

# A list in VBench's format; its own is not ours to copy.
LIST = [
    {"prompt_en": "a dog", "dimension": ["object_class", "color"]},
    {"prompt_en": "a cat", "dimension": ["object_class", "imaging_quality"]},
    {"prompt_en": "a façade", "dimension": ["temporal_flickering", "imaging_quality"]},
    {"prompt_en": "A Cat", "dimension": ["imaging_quality", "subject_consistency"]},
]
PROMPTS = tuple(e["prompt_en"] for e in LIST)
STAND_IN = """#!{python}
import json, os, pathlib, sys
place = pathlib.Path({place!r})
behave = json.loads((place / "behave.json").read_text())
if sys.argv[2] == "--ground":
    ground = {{"vbench": "0.1.5", "torch": behave.get("torch", "2.5.1"), "device": sys.argv[3]}}
    print(json.dumps(ground | {{"detectron2": behave.get("detectron2", "0.6")}}))
    sys.exit()
job = json.loads(pathlib.Path(sys.argv[2]).read_text())
names = sorted(os.listdir(job["videos"]))
with open(place / "asked.jsonl", "a") as log:
    info = [e["prompt_en"] for e in json.loads(pathlib.Path(job["info"]).read_text())]
    log.write(json.dumps(dict(job, names=names, info=info)) + "\\n")
if behave.get("die"):
    sys.exit("ValueError: " + behave["die"])
out = pathlib.Path(job["out"])
ground = {{"vbench": "0.1.5", "torch": behave.get("torch", "2.5.1"), "device": job["device"]}}
if job["dimension"] in ("object_class", "multiple_objects", "color", "spatial_relationship"):
    ground["detectron2"] = behave.get("detectron2", "0.6")
if job["mode"] == "static_filter":
    static = {{}}
    for own in job["prompts"].values():
        for n in own:
            if sum(static.get(o, False) for o in own) < job["most"]:
                static[n] = n not in behave.get("moving", [])
    (out / "worker.json").write_text(json.dumps({{"ground": ground, "static": static, "swallowed_count": 0}}))
    sys.exit()
names = [n for n in names if n not in behave.get("drop", [])]
values = {{n: behave.get("values", {{}}).get(n, 0.5) for n in names}}
lines = [{{"video_path": job["videos"] + "/" + n, "video_results": v, "frame_count": 16,
          "cnt_per_video": 2, "frame_results": [v]}} for n, v in values.items()]
mean = behave.get("mean", sum(values.values()) / max(len(values), 1))
if job["dimension"] == "imaging_quality" and "mean" not in behave:
    mean /= 100
(out / "srbench_eval_results.json").write_text(json.dumps({{job["dimension"]: [mean, lines]}}))
swallowed = behave.get("swallowed", [])
(out / "worker.json").write_text(json.dumps(
    {{"ground": ground, "swallowed": swallowed, "swallowed_count": len(swallowed)}}))
"""


class StandIn:
    """What VBench is to do, and what it was asked."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.behave()

    def behave(self, **how: Any) -> None:
        (self.place / "behave.json").write_text(json.dumps(how))

    @property
    def asked(self) -> list[dict[str, Any]]:
        log = self.place / "asked.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """VBench's environment, pretended: every video scores 0.5 unless told otherwise."""
    place = tmp_path / "env"
    package = place / "lib" / "python3.11" / "site-packages" / "vbench"
    package.mkdir(parents=True)
    (package / "VBench_full_info.json").write_text(json.dumps(LIST))
    (place / "bin").mkdir()
    interpreter = place / "bin" / "python"
    interpreter.write_text(STAND_IN.format(python=sys.executable, place=str(place)))
    interpreter.chmod(0o755)
    monkeypatch.setenv("SRBENCH_VBENCH_ENV", str(place))
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "weights"))
    monkeypatch.setattr("srbench.vbench.weights.lacking", lambda dimension, home=None: "")
    return StandIn(place)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run with tiny videos; returns its folder."""

    def make(
        prompts: tuple[str, ...] = PROMPTS,
        seeds: tuple[int, ...] = (0, 1),
        methods: tuple[str, ...] = ("large", "small"),
        suite: str = "vbench",
    ) -> Path:
        run, store = tmp_path / "results" / "x" / "run", Store(tmp_path / "store")
        about = tuple(
            MethodRecord(name=m, label=m, id=f"id-{m}", is_reference=m == "large", path=[{}], steps=None)
            for m in methods
        )
        write_json(
            run / "run.json",
            RunRecord(
                experiment="x",
                run="run",
                family="shapes",
                asked=[],
                resolved={
                    "suite": {"kind": suite, "info": None, "extended": None},
                    "family": {"frames": 3, "fps": 8},
                },
                store="../../../store",
                methods=about,
                prompts=prompts,
                seeds=seeds,
                protocol="p",
                commit=None,
                dirty=None,
                packages={},
                device="cpu",
                threads=1,
                started="2025-01-31T12:00:00Z",
            ),
        )
        for m in about:
            for i, prompt in enumerate(prompts):
                for seed in seeds:
                    write_cell(run, make_cell(store, m, i, prompt, seed))
        return run

    return make


def make_cell(store: Store, method: MethodRecord, index: int, prompt: str, seed: int) -> CellRecord:
    key = f"{method.name}-{index}-{seed}".encode().hex().ljust(64, "0")
    pixels = np.full((3, 16, 24, 3), 10 * index + seed + len(method.name), np.uint8)
    path = store.put(key, VIDEO, lambda p: video.write_lossless(p, pixels, 8))
    return CellRecord(
        id=key,
        key=key,
        family="shapes",
        method=method.name,
        label=method.label,
        method_id=method.id,
        path=[{}],
        is_reference=method.is_reference,
        prompt=prompt,
        prompt_index=index,
        seed=seed,
        outcome="done",
        video=path.stem,
        video_bytes=path.stat().st_size,
        protocol="p",
    )


@pytest.fixture
def asked_run(tmp_path: Path, make_run: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a run of one method on a list in VBench's format, with the videos that `pixels` gives."""

    def make(asked: list[dict[str, Any]], pixels: Callable[[int], np.ndarray]) -> Path:
        """pixels: of a seed, 0 or 1, as uint8 (frames, height, width, 3)."""
        info = tmp_path / "info.json"
        info.write_text(json.dumps(asked))
        run = make_run(prompts=tuple(e["prompt_en"] for e in asked), methods=("large",))
        record, cells = read_run(run)
        resolved = record.resolved | {"suite": {"kind": "vbench", "info": str(info)}}
        write_json(run / "run.json", record.model_copy(update={"resolved": resolved}))
        store = Store((run / record.store).resolve())
        for i, cell in enumerate(cells):
            own = pixels(cell.seed)
            path = store.put(f"{i:064}", VIDEO, partial(video.write_lossless, video=own, fps=8))
            write_cell(run, cell.model_copy(update={"key": f"{i:064}", "video": path.stem}))
        return run

    return make
