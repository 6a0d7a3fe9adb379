"""Family YAMLs: checked, their presets, their twins, and what a family refuses."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from srbench.accelerators.pab import PAB
from srbench.accelerators.teacache import TeaCache
from srbench.config import yaml_files
from srbench.config.experiment import Denoiser, check
from srbench.config.registry import build
from srbench.errors import UserError
from srbench.families._settings import TWIN_NOTE
from srbench.suites.base import Seeding

REAL = ("wan21_480p", "wan21_720p", "cogvideox")


def family(name, **changed):
    return build("families", yaml_files.read("family", name) | changed, "family")


@pytest.mark.parametrize("name", REAL)
def test_a_real_family_is_pinned_priced_and_not_on_this_machine(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    real = family(name)
    assert len(real.mistakes()) == 3  # large, small, components: each by its own command
    assert all(len(w.revision) == 40 for w in (real.large, real.small, real.components))
    assert real.price is not None and "paper" in real.price.source
    assert set(real.teacache) == {"large", "small"}
    assert real.warnings() == ()


def test_the_published_prices_are_the_papers_latencies():
    for name, large, small in [("wan21_480p", 841, 158), ("wan21_720p", 3130, 637), ("cogvideox", 213, 75)]:
        price = family(name).price
        assert (price.large * 50, price.small * 50) == pytest.approx((large, small), rel=0.001)


@pytest.mark.parametrize("preset", ["paper", "wan_code", "diffusers"])
def test_a_preset_is_settings_of_wan(preset):
    assert family("wan21_480p", **yaml_files.read("preset", preset))


def test_the_leaderboards_preset_also_seeds_by_prompt():
    preset = yaml_files.read("preset", "vbench_leaderboard")
    assert family("wan21_480p", **preset["family"]).shift == 3.0
    suite = yaml_files.read("suite", "vbench") | preset["suite"]
    assert build("suites", suite, "suite").seeding == Seeding(prompt=100_000)


def test_the_family_as_it_stands_is_the_preset_paper():
    assert family("wan21_480p", **yaml_files.read("preset", "paper")) == family("wan21_480p")


def test_settings_need_no_torch():
    code = "import sys; from srbench.config import yaml_files as configs\n"
    code += "from srbench.config.registry import build\n"
    code += f"for n in {REAL!r}: build('families', configs.read('family', n), 'family').mistakes()\n"
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(("grid", "first"), [("diffusers", 999), ("wan", 999)])
def test_timesteps_are_told_without_a_model(grid, first):
    """In the grid of diffusers σ begins at 1, which its scheduler makes 1 − 1e-6."""
    told = family("wan21_480p", sigma_grid=grid).timesteps(8)
    assert told[0] == first and len(told) == 8 and list(told) == sorted(told, reverse=True)


# -- twins


@pytest.mark.parametrize("name", REAL)
def test_a_twin_is_the_family_with_other_weights_and_fewer_pixels(name):
    real, twin = family(name), family(name, scale="tiny")
    assert twin.mistakes() == []
    assert twin.warnings() == (TWIN_NOTE,)
    assert twin.price is None
    assert (twin.steps, twin.guidance_scale, twin.dtype) == (real.steps, real.guidance_scale, real.dtype)
    assert twin.height < real.height and twin.frames < real.frames
    assert twin.essence() != real.essence()
    assert twin.weights_identity() != real.weights_identity()
    assert dataclasses.replace(twin, steps=8).height == twin.height
    assert twin.teacache != real.teacache  # those belong to the published checkpoints


# -- keys


def test_what_changes_no_bit_is_no_essence():
    one = family("wan21_480p")
    same = dataclasses.replace(one, residency="swap", memory=1e9, price=None, device="cpu", name="other")
    assert same.essence() == one.essence()
    assert dataclasses.replace(one, vae_tiling=True).essence() != one.essence()


def test_another_small_model_leaves_the_large_ones_videos_as_they_are():
    one = family("cogvideox")
    other = dataclasses.replace(one, small=dataclasses.replace(one.small, revision="0" * 40))
    assert one.weights_identity({"large"}) == other.weights_identity({"large"})
    assert one.weights_identity() != other.weights_identity()


def test_coefficients_are_written_into_the_denoisers_that_use_them():
    """So a key holds them, and another fit concerns those denoisers alone."""
    wan = family("wan21_480p")
    accelerated = Denoiser(model="small", accelerators=(TeaCache(threshold=0.1, mode="ret_steps"),))
    (settled,) = wan.settled(accelerated).accelerators
    assert settled.coefficients == wan.teacache["small"]["ret_steps"]
    own = TeaCache(threshold=0.1, coefficients=(1.0, 0.0))
    assert wan.settled(Denoiser(model="small", accelerators=(own,))).accelerators == (own,)
    assert wan.settled(Denoiser(model="small")) == Denoiser(model="small")


# -- what a family refuses


@pytest.mark.parametrize(
    ("denoiser", "told"),
    [
        (Denoiser(model="large", batch_guidance=True), "always runs both guidance branches as one batch"),
        (
            Denoiser(model="large", accelerators=(TeaCache(threshold=0.1, mode="ret_steps"),)),
            "no projected time embedding",
        ),
        (Denoiser(model="large", accelerators=(PAB(hooks="self+cross"),)), "share one attention"),
    ],
)
def test_what_cogvideox_cannot_run_is_told_at_the_door(denoiser, told):
    (mistake,) = family("cogvideox").objections(denoiser, "method.x.path.0")
    assert told in str(mistake) and "method.x.path.0" in str(mistake)


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 8, 10, 20, 25, 40, 50])
def test_steps_that_end_without_noise(steps):
    assert family("cogvideox").objections_to_steps(steps, "method.x.steps") == []


@pytest.mark.parametrize("steps", [6, 7, 15, 18])
def test_steps_that_would_leave_noise_in_the_video_are_refused(steps):
    (mistake,) = family("cogvideox").objections_to_steps(steps, "method.x.steps")
    assert f"method.x.steps = {steps}" in mistake.got


@pytest.mark.parametrize(
    ("before", "after", "rule", "refused"),
    [
        (1.0, 4.0, {"kind": "boundary", "ratio": 0.9}, True),
        (0.0, None, {"kind": "boundary", "ratio": 0.9}, True),  # behind it the family's own guidance
        (4.0, 1.0, {"kind": "boundary", "ratio": 0.9}, False),
        (1.0, 1.0, {"kind": "boundary", "ratio": 0.9}, False),
        (4.0, 3.0, {"kind": "boundary", "ratio": 0.9}, False),
        (1.0, 4.0, {"kind": "fixed_step", "step": 10}, False),  # which promises nothing of WanPipeline
    ],
)
def test_guidance_that_begins_at_a_boundary_is_not_what_the_stock_pipeline_does(before, after, rule, refused):
    path = [
        {"model": "large", "guidance_scale": before, "until": rule},
        {"model": "small", "guidance_scale": after},
    ]
    plain = {
        "name": "trial",
        "family": yaml_files.read("family", "wan21_480p"),
        "suite": {"kind": "prompts", "prompts": ["a cat"]},
        "method": {"switch": {"path": path}},
        "metric": {},
        "engine": {"kind": "local"},
    }
    if not refused:
        assert check(plain)
        return
    with pytest.raises(
        UserError, match="WanPipeline takes guidance_scale ≤ 1 as no guidance in both segments"
    ):
        check(plain)


def test_an_experiment_is_checked_against_its_family():
    plain = {
        "name": "trial",
        "family": yaml_files.read("family", "cogvideox"),
        "suite": {"kind": "prompts", "prompts": ["a cat"], "seeds": 1},
        "method": {
            "large": {"path": [{"model": "large"}]},
            "tea": {"path": [{"model": "large", "accelerators": [{"kind": "teacache", "threshold": 0.1}]}]},
            "half": {"path": [{"model": "large", "dtype": "float32", "attention": "native"}]},
        },
        "metric": {},
        "engine": {"kind": "local"},
    }
    experiment = check(plain)
    assert len(experiment.method("tea").segments[0].denoiser.accelerators[0].coefficients) == 5
    assert experiment.method("half").segments[0].denoiser.name == "large+native+float32"
    plain["method"]["bad"] = {"path": [{"model": "large", "batch_guidance": True}], "steps": 7}
    with pytest.raises(Exception, match="2 mistakes"):
        check(plain)
