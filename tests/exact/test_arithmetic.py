"""Scale rows: one model in another precision, batch or attention backend."""

from __future__ import annotations

import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

from srbench.config import attention
from srbench.config.experiment import Denoiser
from srbench.errors import UserError
from srbench.families._attention import using

from . import cogvideox as twin

STEPS = 4


@pytest.fixture(scope="module")
def videos(method, walked):
    """The small model of the embedded family, plain and in other arithmetic, walked together."""
    variants = {
        "plain": {},
        "bfloat16": {"dtype": "bfloat16"},
        "float32": {"dtype": "float32"},
        "batched": {"batch_guidance": True},
        "math": {"attention": "_native_math"},
        "native": {"attention": "native"},
    }
    return walked(*(method(n, {"model": "small", **more}, steps=STEPS) for n, more in variants.items()))


def test_another_precision_is_stock_with_the_model_loaded_in_it(videos, stock, family):
    weights = family.small
    model = WanTransformer3DModel.from_pretrained(
        weights.path, subfolder=weights.subfolder, dtype=torch.bfloat16
    )
    theirs = stock.run(stock.like(transformer=model, transformer_2=None), STEPS)
    assert torch.equal(videos["bfloat16"].state.latents, theirs)
    assert not torch.equal(theirs, videos["plain"].state.latents)


def test_time_embedding_and_norms_stay_in_float32(sampler):
    model = sampler.model("small", "bfloat16")
    assert model.dtype == torch.bfloat16
    assert model.condition_embedder.time_embedder.linear_1.weight.dtype == torch.float32


def test_the_familys_own_precision_by_name_is_the_same_video(videos):
    assert torch.equal(videos["float32"].state.latents, videos["plain"].state.latents)


def test_one_batch_is_one_call_and_nearly_the_same_video(videos):
    batched, plain = videos["batched"], videos["plain"]
    assert [s.calls_computed for s in batched.trace.steps] == [1] * STEPS
    assert torch.allclose(batched.state.latents, plain.state.latents, atol=1e-3)


def test_readers_are_told(videos):
    names = {n: b.trace.steps[0].denoiser.split("#")[0] for n, b in videos.items()}
    assert names["bfloat16"] == "small+bfloat16" and names["batched"] == "small+batched"
    assert names["math"] == "small+_native_math" and names["plain"] == "small"


# -- attention


def test_native_attention_by_name_is_the_same_video(videos):
    assert torch.equal(videos["native"].state.latents, videos["plain"].state.latents)
    assert torch.allclose(videos["math"].state.latents, videos["plain"].state.latents, atol=1e-3)


def backends(model):
    return {p._attention_backend for p in model.attn_processors.values()}


def test_a_backend_is_set_on_one_model_and_gone_afterwards(sampler):
    """Diffusers' own setting would change every model of the process, and stay."""
    small, large = sampler.model("small"), sampler.model("large")
    process_wide = _AttentionBackendRegistry.get_active_backend()
    with pytest.raises(KeyboardInterrupt), using("_native_math", small):
        assert backends(small) == {"_native_math"}
        assert backends(large) == {None}
        assert _AttentionBackendRegistry.get_active_backend() == process_wide
        raise KeyboardInterrupt
    assert backends(small) == {None}
    assert _AttentionBackendRegistry.get_active_backend() == process_wide


def test_a_shells_choice_of_attention_changes_nothing(sampler, monkeypatch):
    """Diffusers reads DIFFUSERS_ATTN_BACKEND when it is imported; no key holds it."""
    monkeypatch.setattr(_AttentionBackendRegistry, "_active_backend", AttentionBackendName._NATIVE_MATH)
    sampler.family.open()
    assert _AttentionBackendRegistry.get_active_backend()[0] == AttentionBackendName.NATIVE


@pytest.mark.parametrize("role", ["large", "small"])
def test_our_processor_on_cogvideox_has_the_bits_of_diffusers(role, method, walked):
    on = twin.sampler()
    before = on.model(role).attn_processors
    own = walked(
        method("plain", {"model": role}, steps=STEPS),
        method("native", {"model": role, "attention": "native"}, steps=STEPS),
        method("math", {"model": role, "attention": "_native_math"}, steps=STEPS),
        on=on,
        words=twin.text(),
    )
    assert torch.equal(own["native"].state.latents, own["plain"].state.latents)
    assert torch.allclose(own["math"].state.latents, own["plain"].state.latents, atol=1e-3)
    assert on.model(role).attn_processors == before


@pytest.mark.parametrize(
    ("backend", "told"),
    [("flash", r"srbench\[flash\]"), ("sage", r"srbench\[sage\]"), ("_flash_3", "build FlashAttention 3")],
)
def test_a_missing_package_is_told_with_how_to_get_it(backend, told, sampler, monkeypatch):
    monkeypatch.setattr(attention.importlib.util, "find_spec", lambda name: None)
    denoiser = Denoiser(model="small", attention=backend)
    (mistake,) = sampler.family.lacking(denoiser, "method.x.path.0")
    assert f"method.x.path.0.attention = {backend}" in str(mistake)
    with pytest.raises(UserError, match=told):
        raise mistake


def test_an_old_package_counts_as_missing(monkeypatch):
    monkeypatch.setattr(attention.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(attention.importlib.metadata, "version", lambda name: "2.1.0")
    assert attention.mistake("sage", "method") is not None
    monkeypatch.setattr(attention.importlib.metadata, "version", lambda name: "2.2.0")
    assert attention.mistake("sage", "method") is None


@pytest.mark.parametrize(
    ("version", "enough"),
    [
        *[
            (v, True)
            for v in ("2.1.1", "2.2", "2.1.1rc1", "2.1.1+cu128torch2.9", "2.10.0", "3", "2.1.1.dev7")
        ],
        *[(v, False) for v in ("2.1", "2.1.0.post2", "1.99", "2.0.9rc3")],
        ("built-here", True),  # a version that nobody can compare
    ],
)
def test_versions_are_compared_as_pep_440_has_them(version, enough, monkeypatch):
    monkeypatch.setattr(attention.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(attention.importlib.metadata, "version", lambda name: version)
    assert (attention.mistake("sage", "method") is None) == enough


def test_every_name_is_one_of_diffusers():
    known = {b.value for b in _AttentionBackendRegistry.list_backends()}
    assert set(attention.names()) <= known
