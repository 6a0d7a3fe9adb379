"""The embedded family in memory, stock diffusers beside it, and the words the tests are written in.

Everything here is compared bit for bit, so all of it runs on one thread of a CPU.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import UniPCMultistepScheduler, WanPipeline

from srbench.config.experiment import Method, read_method
from srbench.config.registry import build
from srbench.errors import Mistakes
from srbench.families._wan import WanSampler
from srbench.families.base import Text
from srbench.families.wan import Wan
from srbench.sampling import walk as walking
from srbench.sampling.paths import late_attach as attached_late

CONF = Path(__file__).parents[2] / "conf"
PROMPT = "a red circle moving up on a white background"
SEED = 7

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def family() -> Wan:
    """conf/family/shapes.yaml on the CPU, with Wan's own shift and the paper's timesteps."""
    settings = yaml.safe_load((CONF / "family" / "shapes.yaml").read_text())
    wan = {"device": "cpu", "shift": 5.0, "guidance_scale": 4.0}
    return build("families", settings | wan, "family")


@pytest.fixture(scope="session")
def sampler(family: Wan) -> WanSampler:
    return family.open()


@pytest.fixture(scope="session")
def wan_grid(family: Wan, sampler: WanSampler) -> WanSampler:
    """The same models on the sigma grid of Wan's own code."""
    other = dataclasses.replace(family, sigma_grid="wan").open()
    other._models = sampler._models
    return other


@pytest.fixture(scope="session")
def text(sampler: WanSampler) -> Text:
    encoded = sampler.encode([PROMPT, ""])
    return Text(encoded[PROMPT].embedding, encoded[""].embedding)


@pytest.fixture(scope="session")
def method() -> Callable[..., Method]:
    """`method(name, segment, …, steps=8, sampler={…})`: a method as its YAML gives it."""

    def make(name: str, *path: dict[str, Any], steps: int | None = None, **more: Any) -> Method:
        mistakes = Mistakes()
        read = read_method(name, {"path": path, "steps": steps, **more}, mistakes)
        mistakes.stop_if_any()
        assert read is not None
        return read

    return make


@pytest.fixture(scope="session")
def walked(sampler: WanSampler, text: Text) -> Callable[..., dict[str, walking.Branch]]:
    """`walked(method, …)`: walk them together; every method's finished branch, by name."""

    def walk(
        *methods: Method,
        late_attach: bool = False,
        on: Any = sampler,
        words: Text = text,
        **more: Any,
    ) -> dict[str, walking.Branch]:
        methods = tuple(
            dataclasses.replace(m, sampler=m.sampler and on.family.settled_sampler(m.sampler))
            for m in methods
        )
        paths: Any = methods
        if late_attach:
            calls = [on.calls_per_step(m.segments[0].denoiser) for m in methods]
            paths = [
                attached_late(m, on.timesteps(m.steps, m.sampler), n)
                for m, n in zip(methods, calls, strict=True)
            ]
        arrived = {}
        for end in walking.walk(on, lambda _: words, paths, functools.partial(on.start, SEED), **more):
            if isinstance(end, walking.Failure):
                raise end.error
            arrived |= {m.name: end.branch for m in end.methods}
        return arrived

    return walk


@pytest.fixture
def fresh(sampler):
    """The embedded family, its own models loaded once for all, those of a test for it alone."""
    other = sampler.family.open()
    other._models.update(sampler._models)
    return other


@pytest.fixture
def checkpoint(sampler, tmp_path):
    return changed(sampler.model("small"), tmp_path / "distilled")


def changed(model, folder, seed=3):
    """Another checkpoint of a model's class: its own weights, disturbed."""
    other = type(model).from_config(model.config)
    other.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=generator))
    other.save_pretrained(folder)
    return folder


class Stock:
    """diffusers' own WanPipeline, loaded from the embedded family's folder."""

    def __init__(self, family: Wan) -> None:
        self.family = family
        scheduler = UniPCMultistepScheduler.from_pretrained(
            family.components.path, subfolder="scheduler", flow_shift=family.shift
        )
        self.pipeline = WanPipeline.from_pretrained(family.components.path, scheduler=scheduler)
        self.pipeline.set_progress_bar_config(disable=True)

    def like(self, **changed: Any) -> WanPipeline:
        """The same pipeline with other components or another boundary_ratio."""
        pipeline = WanPipeline(**self.pipeline.components | changed)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def run(self, pipeline: WanPipeline, steps: int, guidance: float = 4.0, output: str = "latent") -> Any:
        """What the pipeline makes of the prompt and seed of these tests."""
        return pipeline(
            PROMPT,
            height=self.family.height,
            width=self.family.width,
            num_frames=self.family.frames,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(SEED),
            max_sequence_length=self.family.max_sequence_length,
            output_type=output,
        ).frames


@pytest.fixture(scope="session")
def stock(family: Wan) -> Stock:
    return Stock(family)
