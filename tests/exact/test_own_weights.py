"""Weights of a method's own: the stock pipeline with that transformer, or that LoRA, bit for bit."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel, WanTransformer3DModel
from safetensors.torch import load_file, save_file

from srbench.config.custom_weights import LoRA, OwnWeights
from srbench.config.experiment import Denoiser
from srbench.errors import UserError
from srbench.families._budget import need
from srbench.families._sampler import refuse_other_tensors

from . import cogvideox as twin
from .conftest import changed

needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft fuses a LoRA")


def random_lora(model, file, rank=2, layers=("attn1.to_q", "attn1.to_v")):
    """A LoRA of a transformer's attention, in the layout of diffusers' save_lora_weights."""
    generator, found = torch.Generator().manual_seed(5), {}
    for name, module in model.named_modules():
        if name.endswith(layers):
            out, inner = module.weight.shape
            found[f"transformer.{name}.lora_A.weight"] = torch.randn(rank, inner, generator=generator)
            found[f"transformer.{name}.lora_B.weight"] = torch.randn(out, rank, generator=generator) / 10
    assert found
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(found, file)
    return file


def test_a_checkpoint_is_the_stock_pipeline_with_that_transformer(fresh, checkpoint, stock, method, walked):
    own = method("own", {"model": "small", "weights": {"source": str(checkpoint)}}, steps=6)
    ours = walked(own, on=fresh)["own"].state.latents
    theirs = WanTransformer3DModel.from_pretrained(checkpoint)
    assert torch.equal(ours, stock.run(stock.like(transformer=theirs, transformer_2=None), 6))
    plain = walked(method("plain", {"model": "small"}, steps=6), on=fresh)["plain"].state.latents
    assert not torch.equal(ours, plain)


def test_a_model_may_lie_in_a_subfolder(fresh, sampler, tmp_path, method, walked):
    folder = changed(sampler.model("small"), tmp_path / "pipeline" / "transformer")
    weights = [{"source": str(folder)}, {"source": str(folder.parent), "subfolder": "transformer"}]
    ends = [
        walked(method("own", {"model": "small", "weights": w}, steps=3), on=fresh)["own"] for w in weights
    ]
    assert torch.equal(ends[0].state.latents, ends[1].state.latents)


def test_a_few_steps_of_a_distilled_model_without_guidance(fresh, checkpoint, stock, method, walked):
    """All at once, as a step-distilled model wants it."""
    from .test_own_sampler import FOUR, ListedEuler

    segment = {"model": "small", "guidance_scale": 1.0, "weights": {"source": str(checkpoint)}}
    own = method("own", segment, sampler={"solver": "euler", "timesteps": FOUR})
    branch = walked(own, on=fresh)["own"]
    theirs = stock.like(
        transformer=WanTransformer3DModel.from_pretrained(checkpoint),
        transformer_2=None,
        scheduler=ListedEuler(shift=1.0),
    )
    assert torch.equal(branch.state.latents, stock.run(theirs, 4, guidance=1.0))
    assert [s.calls_computed for s in branch.trace.steps] == [1] * 4
    assert [s.timestep for s in branch.trace.steps] == list(FOUR)


def test_a_switch_to_own_weights_hands_the_history_over(fresh, checkpoint, stock, method, walked):
    t = fresh.timesteps(8)
    start = {"model": "large", "until": {"kind": "fixed_step", "step": 3}}
    own = method("own", start, {"model": "small", "weights": {"source": str(checkpoint)}}, steps=8)
    ours = walked(own, on=fresh)["own"]
    theirs = stock.like(
        transformer_2=WanTransformer3DModel.from_pretrained(checkpoint),
        boundary_ratio=(t[2] + t[3]) / 2000,
    )
    assert torch.equal(ours.state.latents, stock.run(theirs, 8))
    assert ours.trace.steps[3].denoiser.startswith("small+weights#")


@pytest.mark.parametrize("role", ["large", "small"])
def test_cogvideox_too(role, tmp_path, method, walked):
    on = twin.sampler()
    folder = changed(on.model(role), tmp_path / "own")
    own = method("own", {"model": role, "weights": {"source": str(folder)}}, steps=8)
    ours = walked(own, on=on, words=twin.text())["own"].state.latents
    transformer = CogVideoXTransformer3DModel.from_pretrained(folder).eval()
    theirs = twin.run(twin.stock(on, role, transformer=transformer), on, 8)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("residency", ["swap", "offload", "group"])
def test_residency_changes_no_bit_of_them(residency, sampler, checkpoint, text, tmp_path):
    ends = []
    own = Denoiser(model="small", weights=OwnWeights(source=str(checkpoint)))
    for policy in ("both", residency):
        on = dataclasses.replace(sampler.family, residency=policy).open()
        state = on.start(1, 4)
        for denoiser in (Denoiser(model="small"), own, Denoiser(model="small"), own):
            with on.attach(denoiser, 4):
                state, _ = on.step(denoiser, state, text)
        ends.append(state.latents)
    assert torch.equal(*ends)


def test_equal_bytes_from_two_places_are_both_on_the_device(sampler, checkpoint, tmp_path):
    on = sampler.family.open()
    for source in (checkpoint, shutil.copytree(checkpoint, tmp_path / "copy")):
        own = OwnWeights(source=str(source))
        asked = on.family.settled(Denoiser(model="small", weights=own))
        on.model("small", None, asked.weights)
    assert len(on._models) == 2
    assert {id(m) for m in on._residents.here.values()} == {id(m) for m in on._models.values()}


def test_own_weights_count_against_the_devices_memory(sampler, checkpoint):
    """Beside the family's, while those stay on the device."""
    small = Denoiser(model="small")
    own = dataclasses.replace(small, weights=OwnWeights(source=str(checkpoint)))
    one, two = (need(sampler.family, d).total for d in ([small], [small, own]))
    assert two > one
    on = dataclasses.replace(sampler.family, memory=(one + two) / 2).open()
    with on.attach(own, 4):  # alone it fits
        pass
    on._models["small", "float32", None] = sampler.model("small")
    with on.attach(small, 4):
        pass
    with pytest.raises(UserError, match="residency"), on.attach(own, 4):
        pass


def test_files_that_changed_since_the_cells_were_named_are_refused(sampler, fresh, checkpoint, monkeypatch):
    """As on a worker that has other bytes under the same path."""
    asked = sampler.family.settled(Denoiser(model="small", weights=OwnWeights(source=str(checkpoint))))
    fresh.model(asked.model, None, asked.weights)
    changed(sampler.model("small"), checkpoint, seed=4)
    other = sampler.family.open()
    with pytest.raises(UserError, match="other bytes"):
        other.model(asked.model, None, asked.weights)


# -- LoRA


def with_lora(pipeline, file, scale):
    """The stock pipeline's own way."""
    pipeline.load_lora_weights(str(file.parent), weight_name=file.name)
    pipeline.fuse_lora(components=["transformer"], lora_scale=scale)
    return pipeline


@needs_peft
@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("on_checkpoint", [False, True])
def test_a_lora_is_the_stock_pipeline_with_it_loaded_and_fused(
    scale, on_checkpoint, fresh, sampler, checkpoint, stock, tmp_path, method, walked
):
    file = random_lora(sampler.model("small"), tmp_path / "lora" / "a.safetensors")
    weights = {"lora": {"source": str(file), "scale": scale}}
    weights |= {"source": str(checkpoint)} if on_checkpoint else {}
    ours = walked(method("own", {"model": "small", "weights": weights}, steps=4), on=fresh)["own"]
    folder = checkpoint if on_checkpoint else fresh.family.small.folder / "transformer_2"
    theirs = stock.like(transformer=WanTransformer3DModel.from_pretrained(folder), transformer_2=None)
    plain = stock.run(theirs, 4)
    assert torch.equal(ours.state.latents, stock.run(with_lora(theirs, file, scale), 4))
    assert not torch.equal(ours.state.latents, plain)


@needs_peft
def test_a_fused_model_is_a_plain_one(fresh, sampler, tmp_path):
    """Nothing of peft is left in it, so accelerators and residency find what they know."""
    file = random_lora(sampler.model("small"), tmp_path / "a.safetensors")
    own = OwnWeights(lora=LoRA(source=str(file)))
    names = [n for n, _ in fresh.model("small", None, own).named_parameters()]
    assert names == [n for n, _ in sampler.model("small").named_parameters()]
    assert not hasattr(fresh.model("small", None, own), "peft_config")


@needs_peft
def test_cogvideox_with_a_lora_too(tmp_path, method, walked):
    on = twin.sampler()
    file = random_lora(on.model("small"), tmp_path / "a.safetensors")
    own = method("own", {"model": "small", "weights": {"lora": {"source": str(file), "scale": 0.7}}}, steps=8)
    ours = walked(own, on=on, words=twin.text())["own"].state.latents
    transformer = CogVideoXTransformer3DModel.from_pretrained(on.family.small.folder / "transformer").eval()
    theirs = with_lora(twin.stock(on, "small", transformer=transformer), file, 0.7)
    assert torch.equal(ours, twin.run(theirs, on, 8))


@needs_peft
def test_a_lora_with_parts_for_another_model_is_refused_when_it_is_loaded(fresh, tmp_path):
    """One for image to video, in Wan's layout: diffusers would leave its image parts out."""
    name = "diffusion_model.blocks.{}.cross_attn.{}.lora_{}.weight"
    keys = {name.format(i, x, s): torch.zeros(2, 2) for i in range(4) for x in "qkvo" for s in "AB"}
    keys |= {
        name.format(i, x, s): torch.zeros(2, 2) for i in range(4) for x in ("k_img", "v_img") for s in "AB"
    }
    save_file(keys, tmp_path / "i2v.safetensors")
    own = OwnWeights(lora=LoRA(source=str(tmp_path / "i2v.safetensors")))
    with pytest.raises(UserError, match=r"cross_attn\.k_img.*\n.*a layer of the model"):
        fresh.model("small", None, own)


def rewritten(file, to, rename, alpha=None, metadata=None, **more):
    """A LoRA's file under other names, with an alpha for every pair, or with further tensors."""
    keys = {rename(k): v for k, v in load_file(file).items()}
    if alpha is not None:
        keys |= {f"{k.rpartition('.lora_')[0]}.alpha": torch.tensor(alpha) for k in list(keys)}
    save_file(keys | more, to, metadata)
    return LoRA(source=str(to))


def kohya(key):
    return key.replace("lora_A", "lora_down").replace("lora_B", "lora_up")


def native(key):
    return kohya(key).replace("transformer.", "diffusion_model.").replace("attn1.to_", "self_attn.")


def flat(key):
    name, _, end = native(key).removeprefix("diffusion_model.").partition(".lora_")
    return f"lora_unet_{name.replace('.', '_')}.lora_{end}"


@needs_peft
@pytest.mark.parametrize("rename", [str, kohya, native, flat])
def test_one_lora_under_every_name_is_one_update(rename, fresh, sampler, tmp_path):
    """Rank 2 and alpha 1, in tensors or in diffusers' metadata: half of what the pairs say by themselves."""
    model = sampler.model("small")
    file = random_lora(model, tmp_path / "pairs.safetensors")
    about = json.dumps({"transformer.r": 2, "transformer.lora_alpha": 1})
    said = rewritten(file, tmp_path / "said.safetensors", str, metadata={"lora_adapter_metadata": about})
    with_alpha = rewritten(file, tmp_path / "alpha.safetensors", rename, alpha=1.0)
    without = rewritten(file, tmp_path / "plain.safetensors", rename)
    weights = {
        name: fresh.model("small", None, OwnWeights(lora=lora)).state_dict()
        for name, lora in (("said", said), ("alpha", with_alpha), ("plain", without))
    }
    pairs, before = load_file(file), model.state_dict()
    for name, weight in before.items():
        layer = f"transformer.{name.removesuffix('.weight')}"
        by_hand = torch.zeros_like(weight)
        if f"{layer}.lora_A.weight" in pairs:
            by_hand = pairs[f"{layer}.lora_B.weight"] @ pairs[f"{layer}.lora_A.weight"]
        assert torch.equal(weights["plain"][name], weight + by_hand)
        assert torch.equal(weights["alpha"][name], weights["said"][name])
        assert torch.equal(weights["alpha"][name], weight + by_hand / 2)


@needs_peft
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_differences_of_norms_biases_and_tables_are_added(scale, fresh, sampler, tmp_path):
    """Diffusers leaves those of norms out; ComfyUI, for which such files are made, adds them."""
    model = sampler.model("small")
    before = model.state_dict()
    named = {
        "blocks.1.self_attn.norm_q.diff": "blocks.1.attn1.norm_q.weight",
        "blocks.1.norm3.diff": "blocks.1.norm2.weight",
        "blocks.1.norm3.diff_b": "blocks.1.norm2.bias",
        "blocks.0.self_attn.q.diff_b": "blocks.0.attn1.to_q.bias",
        "blocks.0.modulation.diff": "blocks.0.scale_shift_table",
        "head.head.diff": "proj_out.weight",
        "time_projection.1.diff_b": "condition_embedder.time_proj.bias",
        "patch_embedding.diff": "patch_embedding.weight",
    }
    generator = torch.Generator().manual_seed(2)
    more = {
        f"diffusion_model.{k}": torch.randn(before[n].shape, generator=generator) for k, n in named.items()
    }
    file = random_lora(model, tmp_path / "pairs.safetensors")
    lora = rewritten(file, tmp_path / "all.safetensors", native, **more)
    after = fresh.model("small", None, OwnWeights(lora=dataclasses.replace(lora, scale=scale))).state_dict()
    for key, name in named.items():
        assert torch.equal(after[name], before[name] + scale * more[f"diffusion_model.{key}"])


@needs_peft
@pytest.mark.parametrize("alpha", [float("nan"), float("inf")])
def test_an_alpha_that_is_no_number_is_refused_before_the_model_loads(
    alpha, fresh, sampler, tmp_path, monkeypatch
):
    file = random_lora(sampler.model("small"), tmp_path / "pairs.safetensors")
    lora = rewritten(file, tmp_path / "alpha.safetensors", kohya, alpha=alpha)
    monkeypatch.setattr(fresh.transformer_class, "from_pretrained", None)
    with pytest.raises(UserError, match=r"alpha of blocks\.0\.attn1\.to_q = "):
        fresh.model("small", None, OwnWeights(lora=lora))


def test_a_checkpoint_with_a_tensor_of_another_model_is_refused_before_it_loads(
    fresh, sampler, tmp_path, monkeypatch
):
    """A family's own, too: diffusers would leave the tensor out, with a line in a log."""
    folder = changed(sampler.model("small"), tmp_path / "model")
    file = folder / "diffusion_pytorch_model.safetensors"
    save_file(load_file(file) | {"blocks.0.attn1.gate.weight": torch.zeros(2)}, file)
    monkeypatch.setattr(fresh.transformer_class, "from_pretrained", None)
    with pytest.raises(UserError, match=r"has blocks.0.attn1.gate.weight\n.*WanTransformer3DModel"):
        refuse_other_tensors(fresh.transformer_class, folder)


@needs_peft
def test_wans_own_layout_of_a_lora_is_the_same_lora(fresh, sampler, tmp_path, stock, method, walked):
    """As many on the hub are: diffusers converts it when it loads it, and so do we."""
    generator, keys = torch.Generator().manual_seed(1), {}
    model = sampler.model("small")
    width = model.config.num_attention_heads * model.config.attention_head_dim
    for i in range(model.config.num_layers):
        for attn, x in [(a, x) for a in ("self_attn", "cross_attn") for x in "qkvo"]:
            name = f"diffusion_model.blocks.{i}.{attn}.{x}"
            keys[f"{name}.lora_A.weight"] = torch.randn(2, width, generator=generator) / 10
            keys[f"{name}.lora_B.weight"] = torch.randn(width, 2, generator=generator) / 10
    file = tmp_path / "wan.safetensors"
    save_file(keys, file)
    own = method("own", {"model": "small", "weights": {"lora": {"source": str(file)}}}, steps=3)
    ours = walked(own, on=fresh)["own"].state.latents
    folder = fresh.family.small.folder / "transformer_2"
    theirs = stock.like(transformer=WanTransformer3DModel.from_pretrained(folder), transformer_2=None)
    assert torch.equal(ours, stock.run(with_lora(theirs, file, 1.0), 3))
