"""Strides, channels and schedules are read from configurations; what cannot run is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel

from srbench.config import yaml_files
from srbench.config.experiment import Denoiser, check
from srbench.config.registry import build
from srbench.errors import UserError
from srbench.families import _tiny
from srbench.families._facts import Facts
from srbench.families.base import Text
from srbench.planning.plan import Unit
from srbench.runtime.runner import Runner
from srbench.store.objects import Store

BASE = {"price": None, "dtype": "float32", "device": "cpu", "steps": 4}


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("twins")
    for kind in ("wan", "cogvideox"):
        _tiny.make(kind, folder / kind)
    return {kind: folder / kind for kind in ("wan", "cogvideox")}


@pytest.fixture
def wan(twins: dict[str, Path], tmp_path: Path) -> Path:
    """A pipeline folder of Wan, to be changed."""
    return Path(shutil.copytree(twins["wan"], tmp_path / "wan"))


@pytest.fixture
def cogvideox(twins: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(twins["cogvideox"], tmp_path / "cogvideox"))


def settings(folder: Path, **changed: Any) -> dict[str, Any]:
    """The YAML of a family whose weights lie in a folder."""
    if folder.name == "cogvideox":
        places = {
            "large": {"source": str(folder / "large")},
            "small": {"source": str(folder / "small")},
            "components": {"source": str(folder / "large")},
        }
        size = {"height": 64, "width": 64, "frames": 9}
        return yaml_files.read("family", "cogvideox") | BASE | places | size | changed
    places = {
        "large": {"source": str(folder), "subfolder": "transformer"},
        "small": {"source": str(folder), "subfolder": "transformer_2"},
        "components": {"source": str(folder)},
    }
    size = {"height": 32, "width": 64, "frames": 5}
    return yaml_files.read("family", "wan21_480p") | BASE | places | size | changed


def experiment(folder: Path, **changed: Any) -> Any:
    return check(
        {
            "name": "trial",
            "family": settings(folder, **changed),
            "suite": {"kind": "prompts", "prompts": ["a cat"]},
            "method": {"large": {"path": [{"model": "large"}]}},
            "metric": {},
            "engine": {"kind": "local"},
        }
    )


def edit(file: Path, **changed: Any) -> None:
    plain = json.loads(file.read_text()) | changed
    file.write_text(json.dumps({k: v for k, v in plain.items() if v != "leave out"}))


def refused(folder: Path, **changed: Any) -> str:
    """What an experiment, and so a dry run of it, is refused with."""
    with pytest.raises(UserError) as told:
        experiment(folder, **changed)
    return str(told.value)


# -- strides


@pytest.mark.parametrize("name", ["wan21_480p", "cogvideox"])
def test_without_files_a_family_has_the_strides_of_its_architecture(name: str) -> None:
    family = build("families", yaml_files.read("family", name), "family")
    assert family.facts() == Facts(spatial=8, temporal=4, channels=16, patch=(2, 2))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory, twins: dict[str, Path]) -> Path:
    """A Wan pipeline with the VAE of Wan 2.2 TI2V-5B: stride 16, 48 channels; random weights, two layers."""
    folder = Path(shutil.copytree(twins["wan"], tmp_path_factory.mktemp("wide") / "wan"))
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        **{"base_dim": 8, "decoder_base_dim": 8, "z_dim": 48, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1},
        **{"is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12},
        **{"scale_factor_spatial": 16, "latents_mean": [0.1] * 48, "latents_std": [0.9] * 48},
    )
    shutil.rmtree(folder / "vae")
    vae.save_pretrained(folder / "vae")
    for part in ("transformer", "transformer_2"):
        config = json.loads((folder / part / "config.json").read_text())
        shutil.rmtree(folder / part)
        wider = {k: v for k, v in config.items() if not k.startswith("_")}
        WanTransformer3DModel(**wider | {"in_channels": 48, "out_channels": 48}).save_pretrained(
            folder / part
        )
    return folder


def test_a_vae_of_another_stride_gives_the_size_that_was_asked_for(wide: Path, tmp_path: Path) -> None:
    """As stock diffusers does, bit for bit; latents of stride 8 would make a video of twice the size."""
    on = build("families", settings(wide, sigma_grid="diffusers"), "family").open()
    encoded = on.encode(["a cat", ""])
    text, state = Text(encoded["a cat"].embedding, encoded[""].embedding), on.start(3, 4)
    assert state.latents.shape == (1, 48, 2, 2, 4)
    denoiser = Denoiser(model="large")
    while not state.done:
        state, _ = on.step(denoiser, state, text)
    assert on.decode(state).shape == (5, 32, 64, 3)
    scheduler = on._make_scheduler()
    stock = WanPipeline.from_pretrained(wide, scheduler=scheduler, transformer_2=None)
    stock.set_progress_bar_config(disable=True)
    theirs = stock(
        "a cat",
        "",
        **{"height": 32, "width": 64, "num_frames": 5, "num_inference_steps": 4},
        guidance_scale=on.family.guidance_scale,
        generator=torch.Generator().manual_seed(3),
        max_sequence_length=512,
        output_type="latent",
    ).frames
    assert torch.equal(state.latents, theirs)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (
            {"height": 48},
            "family.height = 48\nexpected: a multiple of 32: the VAE's stride 16 times the patch 2",
        ),
        ({"width": 80}, "family.width = 80"),
        ({"frames": 6}, "expected: 4 n + 1 frames, where 4 is the VAE's stride in time"),
    ],
)
def test_a_size_that_the_strides_cannot_make_is_refused(size: dict[str, int], said: str, wide: Path) -> None:
    assert said in refused(wide, **size)


def test_sizes_go_by_the_checkpoint_and_not_by_16(wan: Path) -> None:
    edit(
        wan / "vae" / "config.json",
        dim_mult=[1, 1, 1],
        temperal_downsample=[True, True],
        scale_factor_spatial=4,
    )
    assert experiment(wan, height=40).family.facts().spatial == 4
    assert "a multiple of 8" in refused(wan, height=36)


def test_a_video_of_another_size_than_asked_for_fails(
    wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its VAE's configuration said."""
    made = experiment(wan)
    runner = Runner(made, tmp_path / "run", Store(tmp_path / "store"), 1)
    runner.encode(["a cat"])
    monkeypatch.setattr(runner.sampler, "decode", lambda state: np.zeros((5, 64, 128, 3), np.uint8))
    unit = Unit(0, "a cat", 0)
    (cell,) = runner._compute(unit, lambda event: None)
    assert (cell.outcome, cell.video) == ("failed", None)
    assert "a decoded video of 5 frames of 128×64" in cell.reason
    assert not list((tmp_path / "store").rglob("*.webm"))


# -- what is refused, in a plan too


@pytest.mark.parametrize(
    ("file", "changed", "said"),
    [
        ("model_index.json", {"expand_timesteps": True}, "expand_timesteps is True in"),
        (
            "model_index.json",
            {"_class_name": "WanImageToVideoPipeline"},
            "expected: WanPipeline, text to video",
        ),
        ("vae/config.json", {"_class_name": "AutoencoderKLQwenImage"}, "expected: AutoencoderKLWan"),
        ("vae/config.json", {"scale_factor_spatial": 16}, "expected: 8, which its layers make"),
        ("vae/config.json", {"scale_factor_temporal": 8}, "expected: 4, which its layers make"),
        ("vae/config.json", {"patch_size": 2}, "scale_factor_spatial is 8"),
        ("vae/config.json", {"scale_factor_spatial": "eight"}, "expected: a whole number above 0"),
        ("vae/config.json", {"scale_factor_spatial": None}, "expected: a whole number above 0"),
        ("vae/config.json", {"z_dim": 48}, "in_channels is 16"),
        ("vae/config.json", {"dim_mult": "wide"}, "dim_mult is 'wide'"),
        ("transformer/config.json", {"in_channels": 36}, "expected: 16, the channels of the VAE's latents"),
        ("transformer_2/config.json", {"out_channels": 32}, "family.small: out_channels is 32"),
        ("transformer/config.json", {"image_dim": 1280}, "image_dim is 1280"),
        ("transformer/config.json", {"patch_size": [2, 2, 2]}, "a token covers one latent frame"),
        ("transformer/config.json", {"patch_size": 2}, "patch_size is 2"),
        (
            "transformer/config.json",
            {"_class_name": "WanVACETransformer3DModel"},
            "WanTransformer3DModel, which",
        ),
        ("scheduler/scheduler_config.json", {"prediction_type": "epsilon"}, "prediction_type is 'epsilon'"),
        ("scheduler/scheduler_config.json", {"prediction_type": "leave out"}, "prediction_type is missing"),
        ("scheduler/scheduler_config.json", {"use_flow_sigmas": False}, "use_flow_sigmas is False"),
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "FlowMatchEulerDiscreteScheduler"},
            "expected: UniPCMultistepScheduler",
        ),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 500}, "expected: 1000 timesteps"),
        ("scheduler/scheduler_config.json", {"use_dynamic_shifting": True}, "use_dynamic_shifting is True"),
        ("scheduler/scheduler_config.json", {"use_karras_sigmas": True}, "use_karras_sigmas is True"),
        ("scheduler/scheduler_config.json", {"use_beta_sigmas": True}, "use_beta_sigmas is True"),
        ("scheduler/scheduler_config.json", {"shift_terminal": 0.1}, "shift_terminal is 0.1"),
        ("scheduler/scheduler_config.json", {"predict_x0": False}, "predict_x0 is False"),
        ("scheduler/scheduler_config.json", {"solver_order": "two"}, "expected: 1, 2 or 3"),
        ("vae/config.json", {"latents_mean": [0.0] * 3}, "expected: 16 numbers, one for each channel"),
        ("vae/config.json", {"latents_mean": None}, "latents_mean is None"),
        ("vae/config.json", {"latents_std": [0.0] * 16}, "expected: 16 numbers above 0"),
        ("vae/config.json", {"latents_std": ["1"] * 16}, "expected: 16 numbers above 0"),
    ],
)
def test_what_wan_does_not_support_is_refused_with_the_true_reason(
    file: str, changed: dict[str, Any], said: str, wan: Path
) -> None:
    assert experiment(wan)
    edit(wan / file, **changed)
    told = refused(wan)
    assert said in told
    with pytest.raises(UserError):  # for those who open a family themselves
        build("families", settings(wan), "family").open()


def test_expand_timesteps_is_told_as_what_it_is(wan: Path) -> None:
    edit(wan / "model_index.json", expand_timesteps=True)
    assert "models with a timestep for each token (Wan 2.2 TI2V-5B) are not supported yet" in refused(wan)


@pytest.mark.parametrize(
    ("file", "changed", "said"),
    [
        ("large/scheduler/scheduler_config.json", {"prediction_type": "epsilon"}, "family.components"),
        ("small/scheduler/scheduler_config.json", {"prediction_type": "epsilon"}, "family.small"),
        (
            "small/scheduler/scheduler_config.json",
            {"_class_name": "DDIMScheduler"},
            "CogVideoXDDIMScheduler or",
        ),
        ("large/transformer/config.json", {"patch_size_t": 2}, "srbench supports CogVideoX 1.0"),
        ("large/transformer/config.json", {"in_channels": 32}, "the channels of the VAE's latents"),
        (
            "large/model_index.json",
            {"_class_name": "CogVideoXImageToVideoPipeline"},
            "CogVideoXPipeline, text",
        ),
        ("large/vae/config.json", {"temporal_compression_ratio": 2.5}, "a whole number above 0"),
    ],
)
def test_what_cogvideox_does_not_support_is_refused_too(
    file: str, changed: dict[str, Any], said: str, cogvideox: Path
) -> None:
    assert experiment(cogvideox)
    edit(cogvideox / file, **changed)
    told = refused(cogvideox)
    assert said in told and Path(file).name in told


def test_epsilon_prediction_is_no_text_encoder_that_does_not_load(cogvideox: Path) -> None:
    edit(cogvideox / "large" / "scheduler" / "scheduler_config.json", prediction_type="epsilon")
    told = refused(cogvideox)
    assert "prediction_type is 'epsilon'" in told and "expected: v_prediction" in told
    assert "text encoder" not in told


def test_a_torn_configuration_is_a_mistake_of_its_own_and_no_traceback(wan: Path) -> None:
    (wan / "vae" / "config.json").write_text("{")
    made = experiment(wan)
    assert "vae/config.json" in str(made.family.mistakes()[0])
