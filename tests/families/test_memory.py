"""What fits is computed before a model loads; components move by the policy."""

from __future__ import annotations

import gc
import json
import struct
import weakref

import pytest
import torch
from torch import nn

from srbench.accelerators.pab import PAB
from srbench.config import yaml_files
from srbench.config.experiment import Denoiser
from srbench.config.registry import build
from srbench.errors import UserError
from srbench.families import _budget
from srbench.families._residency import Residents
from srbench.families.base import Text

LARGE, SMALL = Denoiser(model="large"), Denoiser(model="small")


def family(name, **changed):
    return build("families", yaml_files.read("family", name) | changed, "family")


def headers_only(folder, config, parameters):
    """A model's folder with a config and a safetensors header of that many numbers, without them."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    header = json.dumps({"w": {"dtype": "F32", "shape": [parameters], "data_offsets": [0, 0]}})
    raw = header.encode()
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw)


@pytest.fixture
def wan(tmp_path):
    """Wan 2.1 at 480p by its true sizes, without its weights."""

    def config(heads, layers, ffn):
        return {
            "num_attention_heads": heads,
            "attention_head_dim": 128,
            "num_layers": layers,
            "ffn_dim": ffn,
        }

    headers_only(tmp_path / "14b" / "transformer", config(40, 40, 13824), 14_288_491_584)
    headers_only(tmp_path / "1b" / "transformer", config(12, 30, 8960), 1_418_996_800)
    headers_only(tmp_path / "14b" / "vae", {}, 126_892_531)
    parts = {
        "large": {"source": str(tmp_path / "14b")},
        "small": {"source": str(tmp_path / "1b")},
        "components": {"source": str(tmp_path / "14b")},
    }
    return lambda **changed: family("wan21_480p", **(parts | changed))


def test_weights_are_counted_from_their_headers(wan):
    need = _budget.need(wan(), [LARGE, SMALL])
    assert need.weights == 2 * (14_288_491_584 + 1_418_996_800) + 4 * 126_892_531
    assert 1e9 < need.activations < 1e10
    assert need.caches == 0


@pytest.mark.parametrize(("state", "gigabytes"), [("shared", 13.4), ("per_branch", 26.8)])
def test_pabs_cache_is_one_attention_output_a_layer(wan, state, gigabytes):
    accelerated = Denoiser(model="large", accelerators=(PAB(state=state),))
    assert _budget.need(wan(), [accelerated]).caches / 1e9 == pytest.approx(gigabytes, abs=0.05)


def test_residency_takes_less_and_less(wan):
    needs = [_budget.need(wan(residency=r), [LARGE, SMALL]) for r in ("both", "swap", "offload", "group")]
    weights = [n.weights for n in needs]
    assert weights == sorted(weights, reverse=True) and len(set(weights)) == 4


def test_what_does_not_fit_is_told_with_what_would_help(wan):
    assert _budget.shortage(wan(), [LARGE, SMALL], 80e9) is None
    mistake = _budget.shortage(wan(), [LARGE, SMALL], 24e9)
    assert "family.residency = both needs" in mistake.got and "22.4 GiB" in mistake.expected
    assert mistake.do == "set family.residency=swap"
    pab = Denoiser(model="large", accelerators=(PAB(state="per_branch"),))
    assert "pab with state: shared" in _budget.shortage(wan(residency="swap"), [pab], 40e9).do
    assert "more memory" in _budget.shortage(wan(residency="group"), [LARGE], 1e9).do


def test_without_the_files_nothing_is_claimed():
    assert _budget.need(family("wan21_480p"), [LARGE]) is None


# -- residency, on a device that is the host: what moves is what counts


class Component(nn.Linear):
    def __init__(self, name, log):
        super().__init__(1, 1)
        self.name, self.log = name, log

    def to(self, device):
        self.log.append(f"{self.name} → {device}")
        return self


BACK_FROM_SMALL = ["small → cpu", "large → meta"]
BACK_FROM_VAE = ["small → cpu", "vae → meta", "vae → cpu", "large → meta"]


@pytest.mark.parametrize(
    ("policy", "moves"),
    [
        ("both", ["large → meta", "small → meta", "vae → meta"]),
        ("swap", ["large → meta", "large → cpu", "small → meta", "vae → meta", *BACK_FROM_SMALL]),
        ("offload", ["large → meta", "large → cpu", "small → meta", *BACK_FROM_VAE]),
    ],
)
def test_components_come_and_go_by_the_policy(policy, moves):
    log = []
    large, small, vae = (Component(n, log) for n in ("large", "small", "vae"))
    residents = Residents(policy, torch.device("meta"))
    residents.place("large", large, transformer=True)
    residents.place("large", large, transformer=True)  # there already
    residents.place("small", small, transformer=True)
    residents.place("vae", vae)
    residents.place("large", large, transformer=True)
    assert log == moves


@pytest.mark.parametrize(
    ("name", "residency"),
    [
        ("wan21_480p", "group"),
        pytest.param("wan21_480p", "swap", marks=pytest.mark.slow),
        pytest.param("wan21_480p", "offload", marks=pytest.mark.slow),
        pytest.param("cogvideox", "swap", marks=pytest.mark.slow),
        pytest.param("cogvideox", "offload", marks=pytest.mark.slow),
        pytest.param("cogvideox", "group", marks=pytest.mark.slow),
    ],
)
def test_residency_changes_no_bit(name, residency):
    pixels = []
    for policy in ("both", residency):
        on = family(name, scale="tiny", residency=policy, device="cpu", dtype="float32").open()
        encoded = on.encode(["a cat", ""])
        text, state = Text(encoded["a cat"].embedding, encoded[""].embedding), on.start(1, 4)
        for denoiser in (LARGE, LARGE, SMALL, LARGE):
            with on.attach(denoiser, 4):
                state, _ = on.step(denoiser, on.hand_over(state, denoiser), text)
        pixels.append(torch.from_numpy(on.decode(state)))
    assert torch.equal(*pixels)


def test_a_denoiser_that_cannot_fit_is_refused_before_its_model_loads():
    on = family("wan21_480p", scale="tiny", memory=1000, device="cpu").open()
    with pytest.raises(UserError, match="residency"), on.attach(LARGE, 4):
        pass
    assert not on._models


def test_the_text_encoder_is_freed(monkeypatch):
    on = family("cogvideox", scale="tiny", device="cpu").open()
    kept, load = [], on.encoder_class.from_pretrained

    def watched(*args, **kwargs):
        encoder = load(*args, **kwargs)
        kept.append(weakref.ref(encoder))
        return encoder

    monkeypatch.setattr(on.encoder_class, "from_pretrained", watched)
    gc.disable()  # what is left must be gone by `encode`'s own doing
    try:
        on.encode(["a cat"])
        assert kept[0]() is None
    finally:
        gc.enable()
