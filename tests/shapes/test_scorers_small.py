"""No broken video beats an honest weak model: the suite cannot be fooled by a trick."""

from __future__ import annotations

import numpy as np
import pytest

from srbench.config import yaml_files
from srbench.config.experiment import Denoiser
from srbench.config.registry import build
from srbench.families.base import Text
from srbench.shapes.render import render
from srbench.shapes.scorers import Totals, aggregate, score
from srbench.shapes.world import Scene, scenes

from .test_scorers import blank, blurred, frozen, noisy, shuffled

MOVING = [s for n in (1, 2) for s in scenes(n, "test") if s.motion != "still"]  # type: ignore[arg-type]
# one and two things in turn, spread over the split
CHOSEN: list[Scene] = [
    *[s for s in MOVING if len(s.things) == 1][::2][:8],
    *[s for s in MOVING if len(s.things) == 2][::97][:8],
]


@pytest.fixture(scope="module")
def small() -> Totals:
    """What the small model makes of the same captions."""
    family = build("families", yaml_files.read("family", "shapes") | {"device": "cpu"}, "family")
    sampler, denoiser = family.open(), Denoiser(model="small")
    encoded = sampler.encode([*(s.caption for s in CHOSEN), ""])
    scored = []
    for seed, scene in enumerate(CHOSEN):
        state = sampler.start(seed, None)
        text = Text(encoded[scene.caption].embedding, encoded[""].embedding)
        while not state.done:
            state, _ = sampler.step(denoiser, state, text)
        scored.append(score(sampler.decode(state), scene))
    return aggregate(scored)


@pytest.mark.parametrize("harm", [blank, frozen, shuffled, blurred, noisy], ids=lambda f: f.__name__)
def test_ground_truth_that_was_broken_falls_below_the_small_model(harm, small: Totals) -> None:
    rng = np.random.default_rng(0)
    videos = [render(s, 71_000 + i) for i, s in enumerate(CHOSEN)]
    broken = aggregate([score(harm(v, rng), s) for v, s in zip(videos, CHOSEN, strict=True)])
    print(f"\n{harm.__name__} {broken.total:.3f}, small {small.total:.3f}", end="")
    assert broken.total < small.total
