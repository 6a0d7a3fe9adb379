"""Ground truth through the family's own VAE: the best score any of its denoisers can reach."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan

import srbench.shapes
from srbench.shapes.render import render
from srbench.shapes.scorers import DIMENSIONS, Scores, aggregate, score
from srbench.shapes.world import scenes

VAE = Path(srbench.shapes.__file__).parent / "model" / "vae"
LEAST, CLIPS = 0.97, 128


@pytest.fixture(scope="module")
def scores() -> list[Scores]:
    """128 clips of the test split, encoded, taken at the mode and decoded.

    The limits were chosen on the tune split, where the VAE costs about 2 % of scenes their shape;
    so few clips would pass or fail by luck.
    """
    assert (VAE / "config.json").is_file(), f"the embedded VAE is missing: {VAE}"
    vae = AutoencoderKLWan.from_pretrained(VAE)
    one, two = scenes(1, "test"), scenes(2, "test")
    got = []
    for i in range(CLIPS):
        scene = two[(i * 53 + 11) % len(two)] if i % 2 else one[i // 2 % len(one)]
        video = render(scene, 200_000 + i)
        x = torch.from_numpy(video).float().movedim(-1, 0)[None] / 127.5 - 1
        with torch.no_grad():
            y = vae.decode(vae.encode(x).latent_dist.mode()).sample
        decoded = ((y[0].movedim(0, -1).clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
        got.append(score(decoded, scene))
    return got


@pytest.mark.parametrize("name", list(DIMENSIONS))
def test_the_vae_costs_next_to_nothing(scores: list[Scores], name: str) -> None:
    values = [v for one in scores if (v := one[name]) is not None]
    print(f"\n{name}: mean {np.mean(values):.4f} min {min(values):.4f} n {len(values)}", end="")
    assert np.mean(values) >= LEAST


def test_its_total_is_the_ceiling_of_the_family(scores: list[Scores]) -> None:
    assert aggregate(scores).total >= LEAST
