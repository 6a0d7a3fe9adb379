"""Training goes on where it stopped, as if it had not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from srbench.shapes import train_denoisers, train_text, train_vae
from srbench.shapes.training import warm_cosine
from srbench.shapes.world import scenes

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text encoder, a VAE and a pool of latents, each hardly trained."""
    out = tmp_path_factory.mktemp("training")
    train_text.train(out, steps=2, seed=0)
    train_vae.train(out, steps=1, seed=0)
    for things in (1, 2):
        train_denoisers.encode_pool(out, 8, 0, things)
    return out


def same(a: Path, b: Path) -> bool:
    first, second = load_file(a), load_file(b)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_vae_run_that_stopped_equals_one_that_did_not(tmp_path: Path) -> None:
    train_vae.train(tmp_path / "whole", steps=2, seed=0)
    train_vae.train(tmp_path / "cut", steps=1, seed=0)
    assert not same(tmp_path / "whole" / "vae.safetensors", tmp_path / "cut" / "vae.safetensors")
    train_vae.train(tmp_path / "cut", steps=2, seed=0)
    assert same(tmp_path / "whole" / "vae.safetensors", tmp_path / "cut" / "vae.safetensors")


def test_a_denoiser_run_that_stopped_equals_one_that_did_not(prepared: Path, tmp_path: Path) -> None:
    whole, cut = (shutil.copytree(prepared, tmp_path / n) for n in ("whole", "cut"))
    train_denoisers.train(whole, steps=2, seed=0, batch=4)
    train_denoisers.train(cut, steps=1, seed=0, batch=4)
    train_denoisers.train(cut, steps=2, seed=0, batch=4)
    for name in ("large.safetensors", "small.safetensors"):
        assert same(whole / name, cut / name)


def test_training_sees_captions_of_the_train_split_only(prepared: Path) -> None:
    for things in (1, 2):
        (path,) = prepared.glob(f"pool{things}-*.safetensors")
        index = load_file(path)["caption"]
        pool = scenes(things, "train")  # type: ignore[arg-type]
        assert all(pool[i].split == "train" for i in index.tolist())


def test_the_learning_rate_warms_up_and_falls_to_a_fiftieth() -> None:
    rates = [warm_cosine(step, 1000, warm=100) for step in range(1000)]
    assert rates[0] == 0.01 and rates[99] == 1.0 and max(rates) == 1.0
    assert rates[100:] == sorted(rates[100:], reverse=True) and rates[-1] == pytest.approx(0.02, abs=1e-3)
