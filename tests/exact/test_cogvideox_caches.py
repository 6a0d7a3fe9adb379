"""PAB and TeaCache on CogVideoX: stock PAB, and a forward patched by hand."""

from __future__ import annotations

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import torch
from diffusers import PyramidAttentionBroadcastConfig

from srbench.accelerators.teacache import TeaCache
from srbench.cli.calibrate import record
from srbench.config.experiment import Denoiser
from srbench.errors import UserError

from . import cogvideox as twin

STEPS = 20
POLYNOMIAL = (1.0, 0.5, 0.0)
PAB = {"kind": "pab", "skip_range": 4, "timestep_range": [100, 950]}


def teacache(threshold):
    return {"kind": "teacache", "threshold": threshold, "coefficients": POLYNOMIAL}


@pytest.mark.parametrize("role", ["large", pytest.param("small", marks=pytest.mark.slow)])
def test_pab_equals_stock_pab_in_the_stock_pipeline(role, method, walked):
    on = twin.sampler()
    ours = walked(
        method("pab", {"model": role, "accelerators": [PAB]}, steps=STEPS), on=on, words=twin.text()
    )
    theirs = twin.stock(on, role, transformer=copy.deepcopy(on.model(role)))
    theirs.transformer.enable_cache(
        PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=4,
            spatial_attention_timestep_skip_range=(100, 950),
            current_timestep_callback=lambda: theirs.current_timestep,
        )
    )
    assert torch.equal(ours["pab"].state.latents, twin.run(theirs, on, STEPS))
    assert sum(s.modules_reused for s in ours["pab"].trace.steps) > 0


def test_pab_may_be_attached_late(method, walked):
    """One call a step, so it is in phase with its counter every fourth step."""
    on = twin.sampler()
    whole = method(
        "pab", {"model": "large", "accelerators": [PAB | {"timestep_range": [100, 800]}]}, steps=STEPS
    )
    plain = method("large", {"model": "large"}, steps=STEPS)
    at_once = walked(whole, on=on, words=twin.text())["pab"]
    late = walked(plain, whole, on=on, words=twin.text(), late_attach=True)["pab"]
    assert [s.denoiser.split("#")[0] for s in late.trace.steps[:5]] == ["large"] * 4 + ["large+pab"]
    assert torch.equal(at_once.state.latents, late.state.latents)


# -- TeaCache


def threshold_that_skips_some(model, on):
    """Half as much again as a typical step adds."""
    t = torch.tensor(on.timesteps(STEPS))
    e = model.time_embedding(model.time_proj(t).to(model.dtype)).detach()
    distances = [float((b - a).abs().mean() / a.abs().mean()) for a, b in itertools.pairwise(e)]
    return 1.5 * float(np.median(np.poly1d(POLYNOMIAL)(distances)))


def patched_forward(model, cache, threshold, steps):
    """CogVideoXTransformer3DModel.forward with TeaCache in it, as its authors patch it."""

    def forward(hidden_states, encoder_hidden_states, timestep, image_rotary_emb, **ignored):
        batch, frames, _, height, width = hidden_states.shape
        words = encoder_hidden_states.shape[1]
        e = model.time_embedding(model.time_proj(timestep).to(hidden_states.dtype))
        tokens = model.patch_embed(encoder_hidden_states, hidden_states)
        text, hidden = tokens[:, :words], tokens[:, words:]
        if cache["calls"] in (0, steps - 1):
            reuse = False
        else:
            distance = (e - cache["e"]).abs().mean() / cache["e"].abs().mean()
            cache["sum"] += float(np.poly1d(POLYNOMIAL)(float(distance)))
            reuse = cache["sum"] < threshold
        cache["e"], cache["calls"] = e, cache["calls"] + 1
        cache["reused"].append(reuse)
        if reuse:
            hidden, text = hidden + cache["hidden"], text + cache["text"]
        else:
            cache["sum"] = 0.0
            before = hidden, text
            for block in model.transformer_blocks:
                hidden, text = block(
                    hidden_states=hidden,
                    encoder_hidden_states=text,
                    temb=e,
                    image_rotary_emb=image_rotary_emb,
                )
            cache["hidden"], cache["text"] = hidden - before[0], text - before[1]
        out = model.proj_out(model.norm_out(model.norm_final(hidden), temb=e))
        out = out.reshape(batch, frames, height // 2, width // 2, -1, 2, 2)
        return (out.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4),)

    return forward


@pytest.mark.parametrize(
    ("dtype", "role"),
    [
        ("float32", "large"),
        pytest.param("bfloat16", "large", marks=pytest.mark.slow),
        pytest.param("float32", "small", marks=pytest.mark.slow),
    ],
)
def test_a_run_with_skips_equals_the_hand_patched_forward(dtype, role, method, walked, monkeypatch):
    """Both residuals, video and text, under one decision a call."""
    on = twin.sampler(dtype=dtype)
    model = on.model(role)
    threshold = threshold_that_skips_some(model, on)
    segment = {"model": role, "accelerators": [teacache(threshold)]}
    ours = walked(method("teacache", segment, steps=STEPS), on=on, words=twin.text(dtype))["teacache"]

    cache = {"calls": 0, "sum": 0.0, "reused": []}
    with monkeypatch.context() as patch:
        patch.setattr(model, "forward", patched_forward(model, cache, threshold, STEPS))
        theirs = twin.run(twin.stock(on, role), on, STEPS)
    assert torch.equal(ours.state.latents, theirs)
    assert [s.calls_reused for s in ours.trace.steps] == cache["reused"]
    assert 0 < sum(cache["reused"]) < STEPS - 2


def test_threshold_0_changes_no_bit(method, walked):
    on = twin.sampler()
    videos = walked(
        method("large", {"model": "large"}, steps=8),
        method("teacache", {"model": "large", "accelerators": [teacache(0)]}, steps=8),
        on=on,
        words=twin.text(),
    )
    assert torch.equal(videos["teacache"].state.latents, videos["large"].state.latents)


def test_an_accelerator_is_gone_when_its_with_is_left():
    on = twin.sampler()
    model = on.model("small")

    def anatomy():
        return {n: (sorted(vars(m)), len(m._forward_hooks)) for n, m in model.named_modules() if n}

    before = anatomy()
    accelerators = (TeaCache(threshold=0.1, coefficients=POLYNOMIAL),)
    with on.attach(Denoiser(model="small", accelerators=accelerators), STEPS):
        assert anatomy() != before
    assert anatomy() == before


def test_a_model_without_coefficients_is_refused():
    plain = twin.sampler()
    family = dataclasses.replace(plain.family)
    object.__setattr__(family, "teacache", {})  # a twin brings its own
    on = family.open()
    on._models = plain._models
    with pytest.raises(UserError, match="a rescale polynomial"):
        on.attach(Denoiser(model="small", accelerators=(TeaCache(threshold=0.1),)), STEPS).__enter__()


def test_a_polynomial_can_be_fitted():
    """`srbench calibrate` watches CogVideoX too; it has one mode."""
    on = twin.sampler(steps=8)
    points = record(on, "small", [twin.PROMPT], twin.NEGATIVE, on.family.TEACACHE_MODES)
    assert points.keys() == {"default"}
    assert points["default"].shape == (1, 7, 2) and (points["default"] > 0).all()
