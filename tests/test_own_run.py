"""Methods with weights and samplers of their own, from the command line to the records."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from safetensors.torch import load_file, save_file

from srbench import __main__ as door
from srbench.__main__ import compose, job, typed_places
from srbench.config import yaml_files
from srbench.store.records import CellRecord, read_run, read_run_record

MODEL = Path(door.__file__).parent / "shapes" / "model"
SMALL = ["family.steps=4", "suite.prompts=1", "suite.seeds=1", "metric=[]", "name=trial"]


@pytest.fixture(autouse=True)
def no_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "_to_report", {})


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL / "transformer_2", tmp_path / "own"))


def run(results: Path, *overrides: str) -> dict[str, CellRecord]:
    """Run a job; the cells of the one run that is there, by label."""
    with hydra.initialize_config_dir(str(yaml_files.FOLDER), version_base=None):
        plain = compose(hydra.compose("config", [*SMALL, f"results={results}", *overrides]))
    assert job(plain, []) == 0
    (folder,) = (results / "trial").iterdir()
    return {c.label: c for c in read_run(folder)[1]}


def record(results: Path) -> Any:
    (folder,) = (results / "trial").iterdir()
    return read_run_record(folder)


def distilled(source: Path) -> list[str]:
    """The shipped method on a copy of the small model."""
    words = ["method=[large,small,distilled]", "method.distilled.model=small", "method.distilled.name=copy"]
    return [*words, f"method.distilled.source={source}", "method.distilled.subfolder=null"]


def test_a_copy_of_the_familys_weights_makes_the_familys_video(copy: Path, tmp_path: Path) -> None:
    """Under a key of its own; with the family's sampler and guidance it is the same method."""
    plain = ["method.distilled.sampler=null", "method.distilled.guidance_scale=null"]
    cells = run(tmp_path / "r", *distilled(copy), *plain)
    assert cells["distilled, copy"].video == cells["small"].video
    assert cells["distilled, copy"].key != cells["small"].key
    assert cells["distilled, copy"].trace is not None
    assert {s.denoiser.partition("#")[0] for s in cells["distilled, copy"].trace.steps} == {"small+copy"}


def test_a_distilled_method_walks_its_timesteps_and_its_record_says_so(copy: Path, tmp_path: Path) -> None:
    cells = run(tmp_path / "r", *distilled(copy))
    trace = cells["distilled, copy"].trace
    assert trace is not None
    assert [s.timestep for s in trace.steps] == [1000, 937, 833, 625]
    assert [s.calls_computed for s in trace.steps] == [1, 1, 1, 1]
    (method,) = [m for m in record(tmp_path / "r").methods if m.name == "distilled"]
    assert (method.steps, method.sampler["solver"]) == (4, "euler")
    assert method.path[0]["denoiser"]["weights"]["source"] == str(copy)
    assert all(m.sampler is None for m in record(tmp_path / "r").methods if m.name != "distilled")


def test_changed_weights_are_computed_anew_and_nothing_else_is(copy: Path, tmp_path: Path) -> None:
    first = run(tmp_path / "r", *distilled(copy))
    again = run(tmp_path / "r", *distilled(copy))
    assert {m: c.finished for m, c in again.items()} == {m: c.finished for m, c in first.items()}
    file = copy / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["proj_out.bias"] += 0.5
    save_file(weights, file)
    (folder,) = (tmp_path / "r" / "trial").iterdir()
    changed = run(tmp_path / "r", *distilled(copy))
    both = [c for c in read_run(folder)[1] if c.method == "distilled"]
    assert len(both) == 2 and len({c.video for c in both}) == len({c.method_id for c in both}) == 2
    assert changed["small"].finished == first["small"].finished


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft fuses a LoRA")
def test_the_shipped_lora_method(tmp_path: Path) -> None:
    """One of nothing changes nothing, of something something; on a small model in the large one's place."""
    weights = load_file(MODEL / "transformer_2" / "diffusion_pytorch_model.safetensors")
    width = weights["proj_out.weight"].shape[1]
    generator = torch.Generator().manual_seed(0)
    for name, size in (("none", 0.0), ("some", 0.1)):
        a = torch.randn(2, width, generator=generator)
        b = size * torch.randn(width, 2, generator=generator)
        key = "transformer.blocks.0.attn1.to_q.lora_{}.weight"
        save_file({key.format("A"): a, key.format("B"): b}, tmp_path / f"{name}.safetensors")
    words = ["method=[large,small,lora]", "method.lora.model=small", "method.lora.name=noise"]
    lora = {
        name: run(tmp_path / name, *words, f"method.lora.source={tmp_path / name}.safetensors")
        for name in ("none", "some")
    }
    assert lora["none"]["LoRA noise × 1.0"].video == lora["none"]["small"].video
    assert lora["some"]["LoRA noise × 1.0"].video != lora["some"]["small"].video
    (method,) = [m for m in record(tmp_path / "some").methods if m.name == "lora"]
    assert method.packages == (f"peft {importlib.metadata.version('peft')}",)
    assert record(tmp_path / "some").packages["peft"] == importlib.metadata.version("peft")


def test_an_own_sampler_keeps_states_of_its_own(tmp_path: Path) -> None:
    """A later method of the same sampler takes its steps up, one of the family's does not."""
    results = tmp_path / "r"
    euler = ["+method.fixed_step.sampler.solver=euler", "keep=all"]
    run(results, "method=[large]", "keep=all")
    first = run(results, "method=[large,fixed_step]", "method.fixed_step.step=2", *euler)["fixed switch at 2"]
    assert all(s is not None for s in first.step_seconds)
    later = run(results, "method=[large,fixed_step]", "method.fixed_step.step=3", *euler)["fixed switch at 3"]
    alone = run(tmp_path / "other", "method=[large,fixed_step]", "method.fixed_step.step=3", *euler)
    assert later.video == alone["fixed switch at 3"].video
    assert later.step_seconds[:2] == (None, None) and later.step_seconds[2] is not None


def test_mistakes_of_the_shipped_methods_are_told_by_their_parameters() -> None:
    with hydra.initialize_config_dir(str(yaml_files.FOLDER), version_base=None):
        places = typed_places(hydra.compose("config", ["method=[large,distilled,lora]"]))
    assert places["method.distilled.path.0.weights.source"] == "method.distilled.source"
    assert places["method.lora.path.0.weights.lora.weight_name"] == "method.lora.weight_name"
    assert places["method.lora.path.0.guidance_scale"] == "method.lora.guidance_scale"
