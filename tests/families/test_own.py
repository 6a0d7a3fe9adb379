"""Weights and samplers of a method's own: what names them, and what is refused before anything loads."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from srbench import __main__ as door
from srbench.config import yaml_files
from srbench.config.custom_weights import LoRA, OwnWeights
from srbench.config.experiment import Denoiser, Sampling, check
from srbench.config.registry import build, identity
from srbench.errors import UserError, UserErrors
from srbench.families import _budget, _own
from srbench.planning import cost, plan

COMMIT = "0123456789" * 4
MODEL = Path(door.__file__).parent / "shapes" / "model"
WHERE = "method.mine.path.0"


def family(name: str = "shapes", **changed: Any) -> Any:
    return build("families", yaml_files.read("family", name) | changed, "family")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The embedded small model's folder, to be spoilt."""
    return Path(shutil.copytree(MODEL / "transformer_2", tmp_path / "own"))


def small(**weights: Any) -> Denoiser:
    if "lora" in weights:
        weights["lora"] = LoRA(**weights["lora"])
    return Denoiser(model="small", weights=OwnWeights(**weights))


def told(denoiser: Denoiser, on: Any = None) -> str:
    return "\n".join(map(str, (on or family()).mistakes_of(denoiser, WHERE)))


def edit(folder: Path, **config: Any) -> None:
    file = folder / "config.json"
    plain = json.loads(file.read_text()) | config
    file.write_text(json.dumps({k: v for k, v in plain.items() if v is not None}))


# -- what is refused


def test_a_copy_of_the_familys_own_model_fits(copy: Path) -> None:
    assert told(small(source=str(copy))) == ""
    assert told(Denoiser(model="large", weights=OwnWeights(source=str(copy)))) == ""  # of any size


def test_another_class_is_refused(copy: Path) -> None:
    edit(copy, _class_name="CogVideoXTransformer3DModel")
    said = told(small(source=str(copy)))
    assert ": CogVideoXTransformer3DModel in" in said and "expected: WanTransformer3DModel" in said
    assert f"{WHERE}.weights" in said


@pytest.mark.parametrize(
    ("key", "value"), [("in_channels", 36), ("out_channels", 48), ("patch_size", [1, 4, 4]), ("text_dim", 9)]
)
def test_what_would_not_fit_noise_text_or_video_is_refused(copy: Path, key: str, value: Any) -> None:
    """Whether or not the tensors are as that config.json says."""
    edit(copy, **{key: value})
    weights = load_file(copy / "diffusion_pytorch_model.safetensors")
    patch, out = [1, 2, 2], weights["proj_out.weight"]
    if key == "in_channels":
        weights["patch_embedding.weight"] = torch.zeros(out.shape[1], value, *patch)
    if key == "out_channels":
        weights["proj_out.weight"] = torch.zeros(value * 4, out.shape[1])
    if key == "patch_size":
        weights["patch_embedding.weight"] = torch.zeros(out.shape[1], 16, *value)
        weights["proj_out.weight"] = torch.zeros(16 * 16, out.shape[1])
    if key == "text_dim":
        weights["condition_embedder.text_embedder.linear_1.weight"] = torch.zeros(out.shape[1], value)
    save_file(weights, copy / "diffusion_pytorch_model.safetensors")
    said = told(small(source=str(copy)))
    assert f"{key} {value} in" in said and "as the family's small model has it" in said


def test_tensors_of_parts_that_the_class_here_lacks_are_refused(copy: Path) -> None:
    """Diffusers would load such a checkpoint and leave them out, with a line in a log."""
    file = copy / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    save_file(weights | {"blocks.0.attn1.gate.weight": torch.zeros(2, 2)}, file)
    said = told(small(source=str(copy)))
    assert "has blocks.N.attn1.gate.weight" in said and "a family of its own" in said
    save_file({k: v for k, v in weights.items() if not k.endswith("norm_q.weight")}, file)
    assert "lacks blocks.N.attn1.norm_q.weight and 1 more" in told(small(source=str(copy)))


def test_pickled_weights_are_never_opened(copy: Path) -> None:
    (copy / "diffusion_pytorch_model.safetensors").rename(copy / "diffusion_pytorch_model.bin")
    said = told(small(source=str(copy)))
    assert "diffusion_pytorch_model.bin, a pickle" in said and "can run any code" in said


def test_a_file_cut_short_is_refused(copy: Path) -> None:
    file = copy / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "bytes, as its header says" in told(small(source=str(copy)))


@pytest.mark.parametrize("spoilt", ["vae", "config.json = {", "config.json = []", "cut short"])
def test_a_plan_knows_no_size_of_what_is_no_model(copy: Path, spoilt: str) -> None:
    """It tells of the mistake beside the price, and does not fall over it."""
    file, folder = copy / "diffusion_pytorch_model.safetensors", copy
    if spoilt == "vae":
        folder = MODEL / "vae"
    elif spoilt == "cut short":
        file.write_bytes(file.read_bytes()[:40])
    else:
        (copy / "config.json").write_text(spoilt.partition(" = ")[2])
    own = small(source=str(folder))
    assert told(own) and _budget.model(family(), own) is None
    assert _budget.bytes_of(family(), own) is None and _budget.need(family(), [own]) is None


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert "no nowhere in it" in told(small(source=str(tmp_path), subfolder="nowhere"))
    assert "or a folder that is there" in told(small(source="checkpoints/mine"))


def test_a_pipelines_folder_is_understood(copy: Path) -> None:
    shutil.copytree(copy, copy.parent / "pipeline" / "transformer")
    said = told(small(source=str(copy.parent / "pipeline")))
    assert f"set {WHERE}.weights.subfolder=transformer" in said


def test_a_models_folder_with_a_subfolder_that_it_has_not(copy: Path) -> None:
    said = told(small(source=str(copy), subfolder="transformer"))
    assert f"{copy} has a config.json itself" in said and f"set {WHERE}.weights.subfolder=null" in said


@pytest.mark.parametrize("source", ["./distiled", "distiled", "my/own/distiled", "/nowhere/distiled"])
def test_what_no_repository_is_called_is_a_folder_that_is_not_there(source: str) -> None:
    assert f"source = {source}: no such folder\n" in told(small(source=source, subfolder="transformer"))


def test_weights_without_their_config(copy: Path) -> None:
    (copy / "config.json").unlink()
    assert "no config.json in own\n" in told(small(source=str(copy)))
    (copy / "diffusion_pytorch_model.safetensors").unlink()
    assert "own is empty\n" in told(small(source=str(copy)))


def test_a_hub_repository_is_pinned_and_told_with_size_and_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    said = told(small(source="org/distilled", revision="main"))
    assert "org/distilled at revision 'main'\n" in said and "a commit of 40 hexadecimal digits" in said
    assert "org/distilled without a revision\n" in told(small(source="org/distilled"))
    own = {"source": "org/distilled", "revision": COMMIT, "size": 5.7e9}
    for subfolder, names in ((None, "'config.json' --include 'diff"), ("transformer", "'transformer/*'")):
        (mistake,) = family().mistakes_of(small(**own, subfolder=subfolder), WHERE)
        assert mistake.command.startswith(f"hf download org/distilled --revision {COMMIT} --include {names}")
        assert "5.7 GB" in mistake.expected and "leave the method out" in mistake.do


@pytest.mark.parametrize(
    ("accelerators", "refused"),
    [
        ([{"kind": "teacache", "threshold": 0.1}], True),
        ([{"kind": "teacache", "threshold": 0.1, "coefficients": [1.0, 0.0]}], False),
        ([{"kind": "pab"}], False),
    ],
)
def test_teacache_needs_coefficients_of_these_weights(
    accelerators: list[Any], refused: bool, copy: Path
) -> None:
    """Those of the family are fitted to the family's checkpoint."""
    mine = {"path": [{"model": "small", "weights": {"source": str(copy)}, "accelerators": accelerators}]}
    if refused:
        with pytest.raises(UserErrors, match="belong to the family's checkpoint"):
            check(plain(mine=mine))
    else:
        check(plain(mine=mine))


# -- LoRA


def lora(
    file: Path, layout: str = "transformer", width: int = 144, name: str = "blocks.0.attn1.to_q"
) -> Path:
    parts = {"A": torch.zeros(2, width), "B": torch.zeros(width, 2)}
    save_file({f"{layout}.{name}.lora_{x}.weight": v for x, v in parts.items()}, file)
    return file


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({}, ""),
        ({"layout": "diffusion_model", "name": "blocks.0.self_attn.q"}, ""),  # as Wan's own code names it
        ({"layout": "diffusion_model"}, "expected: a layer of the model"),
        ({"width": 256}, "transformer.blocks.0.attn1.to_q.lora_A.weight of shape [2, 256]"),
        ({"name": "blocks.0.attn3.to_q"}, "expected: a layer of the model"),
        ({"layout": "text_encoder"}, "a LoRA of the transformer alone"),
        ({"layout": "blocks"}, "every key beginning with transformer. or diffusion_model. or lora_unet_"),
    ],
)
def test_a_lora_is_held_against_the_models_layers(tmp_path: Path, made: dict, said: str) -> None:
    denoiser = small(lora={"source": str(lora(tmp_path / "a.safetensors", **made))})
    assert said in (answer := told(denoiser)) and bool(said) == bool(answer)


def pair(
    name: str = "transformer.blocks.0.attn1.to_q", a: str = "lora_A", b: str = "lora_B"
) -> dict[str, Any]:
    return {f"{name}.{a}.weight": torch.zeros(2, 144), f"{name}.{b}.weight": torch.zeros(144, 2)}


def of_file(folder: Path, tensors: dict[str, Any], metadata: dict[str, str] | None = None) -> str:
    """What a LoRA of these tensors is refused with before a model loads."""
    file = folder / "lora.safetensors"
    save_file(tensors, file, metadata)
    return told(small(lora={"source": str(file)}))


DIFFUSERS, NATIVE, FLAT = (
    "transformer.blocks.0.attn1.to_q",
    "diffusion_model.blocks.0.self_attn.q",
    "lora_unet_blocks_0_self_attn_q",
)


@pytest.mark.parametrize(
    "tensors",
    [
        pair(DIFFUSERS),
        pair(DIFFUSERS, "lora_down", "lora_up"),  # kohya's names in diffusers' layout
        pair(NATIVE, "lora_down", "lora_up"),
        pair(FLAT, "lora_down", "lora_up"),  # without an alpha, and of one layer alone
        pair(DIFFUSERS) | {f"{DIFFUSERS}.alpha": torch.tensor(1.0)},
        pair(FLAT, "lora_down", "lora_up") | {f"{FLAT}.alpha": torch.tensor([4.0])},
        pair(NATIVE) | {f"{NATIVE}.diff_b": torch.zeros(144)},
        pair(NATIVE) | {"diffusion_model.blocks.0.self_attn.norm_q.diff": torch.zeros(144)},
        pair(NATIVE) | {"diffusion_model.blocks.0.norm3.diff": torch.zeros(144)},
        pair(NATIVE) | {"diffusion_model.blocks.0.norm3.diff_b": torch.zeros(144)},
        pair(NATIVE) | {"diffusion_model.blocks.0.modulation.diff": torch.zeros(1, 6, 144)},
        pair(NATIVE) | {"diffusion_model.head.modulation.diff": torch.zeros(1, 2, 144)},
        pair(NATIVE) | {"diffusion_model.patch_embedding.diff": torch.zeros(144, 16, 1, 2, 2)},
        pair(NATIVE) | {"diffusion_model.time_embedding.2.diff_b": torch.zeros(144)},
        {"diffusion_model.text_embedding.2.diff": torch.zeros(144, 144)},  # differences alone
    ],
)
def test_a_lora_of_which_every_key_is_applied_is_taken(tensors: dict[str, Any], tmp_path: Path) -> None:
    assert of_file(tmp_path, tensors) == ""


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({f"{DIFFUSERS}.dora_scale": torch.zeros(144, 1)}, "another kind of adapter (dora_scale)"),
        ({f"{DIFFUSERS}.lora_magnitude_vector": torch.zeros(144)}, "another kind of adapter"),
        ({f"{NATIVE}.hada_w1_a": torch.zeros(2, 2)}, "another kind of adapter (hada_)"),
        ({f"{NATIVE}.lokr_w1": torch.zeros(2, 2)}, "another kind of adapter (lokr_)"),
        ({f"{NATIVE}.lora_mid.weight": torch.zeros(2, 2)}, "another kind of adapter (lora_mid)"),
        ({"text_encoder.x.lora_A.weight": torch.zeros(2, 2)}, "a LoRA of the transformer alone"),
        (
            {"base_model.model.blocks.0.attn1.to_k.lora_A.weight": torch.zeros(2, 144)},
            "the transformer alone",
        ),
        ({f"{DIFFUSERS}.reshape_weight": torch.zeros(2)}, "ending as .lora_A.weight"),
        ({f"{DIFFUSERS}.set_weight": torch.zeros(144, 144)}, "ending as .lora_A.weight"),
        ({"transformer.blocks.0.attn1.to_k.alpha": torch.tensor(1.0)}, "to_k.alpha without its pair"),
        ({"transformer.blocks.0.attn1.to_k.lora_A.weight": torch.zeros(2, 144)}, "without its pair"),
        ({f"{DIFFUSERS}.alpha": torch.zeros(2)}, "expected: one number"),
        (pair(NATIVE), "A of blocks.0.attn1.to_q twice"),  # the same layer in two layouts
        (
            {"transformer.blocks.0.attn1.norm_q.diff": torch.zeros(9)},
            "[144], as blocks.0.attn1.norm_q.weight",
        ),
        ({"transformer.blocks.0.attn1.norm_q.diff_b": torch.zeros(144)}, "has no blocks.0.attn1.norm_q.bias"),
        ({"diffusion_model.blocks.0.norm1.diff": torch.zeros(144)}, "expected: a layer of the model"),
        ({"diffusion_model.blocks.0.cross_attn.k_img.diff_b": torch.zeros(144)}, "a layer of the model"),
        (pair("transformer.patch_embedding"), "a part for a linear layer"),
        ({"transformer.blocks.99.attn1.to_q.diff_b": torch.zeros(144)}, "a layer of the model"),
    ],
)
def test_a_lora_of_which_a_key_would_be_left_out_is_refused(
    more: dict[str, Any], said: str, tmp_path: Path
) -> None:
    assert said in of_file(tmp_path, pair(DIFFUSERS) | more)


def test_two_ranks_in_one_pair_and_a_quantized_lora_are_refused(tmp_path: Path) -> None:
    two = pair() | {"transformer.blocks.0.attn1.to_q.lora_B.weight": torch.zeros(144, 4)}
    assert "of rank 2 and 4" in of_file(tmp_path, two)
    assert "F8_E4M3" in of_file(tmp_path, {k: v.to(torch.float8_e4m3fn) for k, v in pair().items()})


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"transformer.r": 2, "transformer.lora_alpha": 1}, ""),
        ({"text_encoder.r": 8}, ""),  # nothing of the transformer
        ({"transformer.r": 4, "transformer.lora_alpha": 1}, "expected: 4, as"),
        ({"transformer.r": 4, "transformer.rank_pattern": {"x": 2}, "transformer.lora_alpha": 1}, ""),
        ({"transformer.r": 2}, "lora_alpha = None"),
        ({"transformer.r": 2, "transformer.lora_alpha": 1, "transformer.use_dora": True}, "another kind"),
        ([1], "that is no JSON object"),
        ("{", "that is no JSON object"),
    ],
)
def test_what_a_lora_says_of_itself_agrees_with_its_tensors(about: Any, said: str, tmp_path: Path) -> None:
    text = about if isinstance(about, str) else json.dumps(about)
    answer = of_file(tmp_path, pair(), {"lora_adapter_metadata": text})
    assert said in answer and bool(said) == bool(answer)


def test_alpha_in_tensors_and_in_the_metadata_is_one_too_many(tmp_path: Path) -> None:
    about = json.dumps({"transformer.r": 2, "transformer.lora_alpha": 1})
    tensors = pair() | {f"{DIFFUSERS}.alpha": torch.tensor(1.0)}
    assert "alpha both in tensors and in" in of_file(tmp_path, tensors, {"lora_adapter_metadata": about})


def test_a_lora_for_the_large_model_does_not_fit_the_small_one(tmp_path: Path) -> None:
    file = lora(tmp_path / "a.safetensors", width=256)
    assert told(Denoiser(model="large", weights=OwnWeights(lora=LoRA(source=str(file))))) == ""
    assert "that of another size does not fit" in told(small(lora={"source": str(file)}))


def test_a_pickled_lora_a_missing_one_and_no_lora_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"\x80\x02")
    assert "a pickle can run any code" in told(small(lora={"source": str(tmp_path / "a.pt")}))
    assert "No such file" in told(small(lora={"source": str(tmp_path / "b.safetensors")}))
    for source in ("b.safetensors", "loras/b.safetensors"):  # no repository is called that
        assert f"{source} (No such file" in told(small(lora={"source": source}))
    save_file({"transformer.x": torch.zeros(2)}, tmp_path / "c.safetensors")
    assert "without one lora_A" in told(small(lora={"source": str(tmp_path / "c.safetensors")}))


def test_a_lora_on_the_hub_is_told_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    own = {"source": "org/lora", "revision": COMMIT, "weight_name": "a.safetensors", "size": 3e8}
    (mistake,) = family().mistakes_of(small(lora=own), WHERE)
    assert mistake.command == f"hf download org/lora --revision {COMMIT} --include 'a.safetensors'"
    assert "0.3 GB" in mistake.expected


def test_without_peft_the_method_is_skipped_with_the_way_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srbench.config.custom_weights.peft", lambda: None)
    weights = {"lora": {"source": str(lora(tmp_path / "a.safetensors"))}}
    made = check(plain(mine={"path": [{"model": "small", "weights": weights}]}))
    assert "needs peft" in made.method("mine").lacking and "srbench[lora]" in made.method("mine").lacking
    assert made.method("large").lacking == ""
    assert plan.mistakes(made) == []


# -- what names them


def plain(**methods: Any) -> dict[str, Any]:
    return {
        "name": "trial",
        "family": yaml_files.read("family", "shapes"),
        "suite": {"kind": "prompts", "prompts": ["a cat"]},
        "method": {"large": {"path": [{"model": "large"}]}, **methods},
        "metric": {},
        "engine": {"kind": "local"},
    }


def key(**mine: Any) -> str:
    """Of the video of a method."""
    made = check(plain(mine=mine))
    (unit,) = plan.units(made)
    return plan.Keys(made, {}).video(made.method("mine"), unit)


def of(source: Path, **more: Any) -> dict[str, Any]:
    return {"path": [{"model": "small", "weights": {"source": str(source), **more}}]}


def test_a_key_holds_the_bytes_and_neither_their_place_nor_a_name(copy: Path) -> None:
    moved = Path(shutil.copytree(copy, copy.parent / "elsewhere"))
    assert key(**of(copy)) == key(**of(moved)) == key(**of(moved, name="distilled", size=1e9))
    assert key(**of(copy)) != key(path=[{"model": "small"}])
    before = key(**of(copy))
    file = copy / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["proj_out.bias"] += 1
    save_file(weights, file)
    assert key(**of(copy)) != before == key(**of(moved))


def test_a_hubs_commit_names_its_bytes() -> None:
    def at(revision: str, **more: Any) -> str:
        weights = {"source": "org/distilled", "revision": revision, **more}
        return key(path=[{"model": "small", "weights": weights}])

    assert at(COMMIT) == at(COMMIT, size=5e9)
    assert len({at(COMMIT), at(COMMIT[::-1]), at(COMMIT, subfolder="transformer")}) == 3


def test_a_loras_bytes_and_scale_are_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_(name: str, scale: float) -> str:
        weights = {"lora": {"source": str(tmp_path / name), "scale": scale}}
        return key(path=[{"model": "small", "weights": weights}])

    lora(tmp_path / "a.safetensors")
    shutil.copy(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    lora(tmp_path / "c.safetensors", name="blocks.0.attn1.to_k")
    assert with_("a.safetensors", 1.0) == with_("b.safetensors", 1.0)
    assert len({with_("a.safetensors", 1.0), with_("a.safetensors", 0.5), with_("c.safetensors", 1.0)}) == 3
    monkeypatch.setattr(_own, "peft", lambda: "peft 99.0")
    newer = with_("a.safetensors", 1.0)
    monkeypatch.setattr(_own, "peft", lambda: "peft 99.1")
    assert with_("a.safetensors", 1.0) != newer


def test_a_record_says_whose_they_are(copy: Path) -> None:
    made = check(plain(mine=of(copy, name="distilled")))
    (segment,) = made.method("mine").segments
    assert segment.denoiser.name == "small+distilled"
    written = identity(made.method("mine").segments)[0]["denoiser"]["weights"]
    assert written["source"] == str(copy) and len(written["content"]) == 64


def test_another_samplers_videos_are_other_videos_and_its_protocol_the_same() -> None:
    path = [{"model": "small"}]
    own = [None, {"solver": "euler"}, {"shift": 8.0}, {"timesteps": [900, 500]}]
    made = [key(path=path, **({"sampler": s} if s else {})) for s in own]
    assert len(set(made)) == 4
    assert key(path=path, sampler={"solver": "unipc", "shift": 1.0}) == made[0]  # the family's own
    protocols = {plan.protocol(check(plain(mine={"path": path, "sampler": s})), {}) for s in own[1:]}
    assert protocols == {plan.protocol(check(plain()), {})}


# -- samplers that a family has not


@pytest.mark.parametrize(
    ("name", "sampler", "said"),
    [
        ("shapes", {"solver": "ddim"}, "unipc or euler"),
        ("shapes", {"solver": "heun"}, "sampler.solver = 'heun'"),
        ("shapes", {"timesteps": [900, 500], "shift": 3.0}, "one of them: a list is taken as it is"),
        ("shapes", {"timesteps": [900, 500.5]}, "whole numbers, which is all that UniPC tells a model"),
        ("shapes", {"timesteps": [500, 900]}, "timesteps that fall"),
        ("shapes", {"timesteps": [1001.0]}, "less than or equal to 1000"),
        ("shapes", {"timesteps": []}, "at least 1 item"),
        ("shapes", {"timestep": [900]}, "did you mean timesteps?"),
        ("cogvideox", {"solver": "unipc"}, "dpm or ddim"),
        ("cogvideox", {"shift": 3.0}, "each model has its own noise schedule"),
        ("cogvideox", {"timesteps": [900, 500]}, "set the method's steps"),
    ],
)
def test_a_sampler_that_the_family_has_not(name: str, sampler: dict[str, Any], said: str) -> None:
    asked = plain(mine={"path": [{"model": "small"}], "sampler": sampler})
    with pytest.raises(UserErrors) as refused:
        check(asked | {"family": yaml_files.read("family", name)})
    assert said in str(refused.value) and "method.mine.sampler" in str(refused.value)


def test_steps_and_timesteps_that_disagree() -> None:
    sampler = {"solver": "euler", "timesteps": [900, 500.5]}
    with pytest.raises(UserErrors, match="one step a timestep"):
        check(plain(mine={"path": [{"model": "small"}], "steps": 4, "sampler": sampler}))
    made = check(plain(mine={"path": [{"model": "small"}], "sampler": sampler}))
    assert made.method("mine").steps == 2
    assert made.family.timesteps(2, made.method("mine").sampler) == (900.0, 500.5)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"sorce": "a/b"}, "did you mean source?"),
        ({"source": "a/b", "revison": COMMIT}, "did you mean revision?"),
        ({"lora": {"source": "a/b", "weigth_name": "x"}}, "did you mean weight_name?"),
        ({"lora": {}}, "method.mine.path.0.weights.lora.source is missing"),
        ({"lora": "a/b"}, "method.mine.path.0.weights.lora = 'a/b'"),
        ("a/b", "method.mine.path.0.weights = 'a/b'"),
        ({"source": "a/b", "name": "a name"}, "method.mine.path.0.weights.name = 'a name'"),
        ({}, "weights without a source and without a lora"),
    ],
)
def test_a_key_that_weights_have_not(weights: Any, said: str) -> None:
    with pytest.raises(UserErrors) as refused:
        check(plain(mine={"path": [{"model": "small", "weights": weights}]}))
    assert said in str(refused.value)


# -- what a plan reckons with


def test_a_plan_counts_the_further_model(copy: Path) -> None:
    own = dataclasses.replace(small(source=str(copy), name="mine"), guidance_scale=1.0)
    parameters = _budget.parameters(copy)
    assert _budget.bytes_of(family(), own) == 4 * parameters
    assert _budget.bytes_of(family(), small(source="a/b", revision=COMMIT, size=7.0)) == 7.0
    both = _budget.need(family(), [Denoiser(model="small"), own])
    alone = _budget.need(family(), [Denoiser(model="small")])
    assert both is not None and alone is not None
    assert both.weights - alone.weights == 4 * parameters
    swapped = _budget.need(family(residency="swap"), [Denoiser(model="small"), own])
    assert swapped is not None and swapped.weights == alone.weights


def test_a_plan_counts_one_evaluation_for_a_step_without_guidance(copy: Path) -> None:
    few = {"sampler": {"timesteps": [900, 500]}, **of(copy)}
    few["path"][0]["guidance_scale"] = 1.0
    made = check(plain(mine=few, steps={"path": [{"model": "small"}], "steps": 10}))
    whole = cost.cost(made, made.methods, cost.earliest)
    assert whole.alone == whole.shared and (whole.alone.large, whole.alone.small) == (50, 12)
    assert whole.alone.evaluations("small", made.family) == 22
    assert whole.alone.plain("small", made.family) == 11.0


def test_methods_of_two_samplers_share_no_step_in_a_plan() -> None:
    path = [{"model": "large"}]
    made = check(plain(mine={"path": path, "sampler": {"shift": 8.0}}))
    whole = cost.cost(made, made.methods, cost.earliest)
    assert whole.alone == whole.shared == cost.Steps({Denoiser(model="large"): 100})
    assert made.family.settled_sampler(Sampling(shift=1.0)) is None


def test_two_methods_of_the_same_bytes_are_one_path(copy: Path) -> None:
    moved = Path(shutil.copytree(copy, copy.parent / "elsewhere"))
    with pytest.raises(UserError, match="a path of its own for each"):
        check(plain(mine={"label": "mine", **of(copy)}, yours={"label": "yours", **of(moved)}))
