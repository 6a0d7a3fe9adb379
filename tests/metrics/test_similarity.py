"""PSNR and SSIM: against the baselines' own code, against scikit-image, and by their laws."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import convolve2d
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from srbench.config.registry import build
from srbench.errors import UserError
from srbench.metrics.psnr import PSNR
from srbench.metrics.ssim import SSIM

HERE = Path(__file__).parent
CONF = HERE.parents[1] / "conf" / "metric"
ORACLE = json.loads((HERE / "oracle.json").read_text())
VIDEOS = dict(np.load(HERE / "oracle.npz"))
DEFINITIONS = ("gauss11-valid", "uniform7", "gauss11-same")
METRICS = {"psnr": build("metrics", {"kind": "psnr"}, "metric.psnr")} | {
    d: build("metrics", {"kind": "ssim", "definition": d}, "metric.ssim") for d in DEFINITIONS
}
every_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
every_pair = pytest.mark.parametrize("pair", ORACLE["pairs"])


def two(pair: str) -> tuple[np.ndarray, np.ndarray]:
    """The candidate and the reference of an oracle's pair, named reference-candidate."""
    reference, candidate = pair.split("-")
    return VIDEOS[candidate], VIDEOS[reference]


def unit(video: np.ndarray) -> np.ndarray:
    """On [0, 1] as the baselines have it: divided in float32, then float64."""
    return (video.astype(np.float32) / np.float32(255)).astype(np.float64)


def noise(seed: int, frames: int = 2, height: int = 16, width: int = 13) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


# --- the same numbers as others' code


@every_pair
def test_psnr_is_the_baselines(pair: str) -> None:
    np.testing.assert_allclose(PSNR()(*two(pair)), ORACLE["pairs"][pair]["psnr"], rtol=0, atol=1e-6)


@every_pair
def test_ssim_is_the_baselines(pair: str) -> None:
    expected = ORACLE["pairs"][pair]["ssim"]
    np.testing.assert_allclose(SSIM()(*two(pair)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pair", ["a-d", "b-d"])
def test_psnr_is_scikit_images(pair: str) -> None:
    video, reference = two(pair)
    expected = [peak_signal_noise_ratio(y, x) for x, y in zip(video, reference, strict=True)]
    np.testing.assert_allclose(PSNR()(video, reference), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("definition", "settings_there"),
    [
        ("gauss11-valid", {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}),
        ("uniform7", {}),
    ],
)
@pytest.mark.parametrize("pair", ["a-b", "a-d", "b-d"])
def test_ssim_is_scikit_images(pair: str, definition: str, settings_there: dict[str, Any]) -> None:
    video, reference = two(pair)
    expected = [
        structural_similarity(x, y, channel_axis=-1, data_range=1.0, **settings_there)
        for x, y in zip(unit(video), unit(reference), strict=True)
    ]
    got = METRICS[definition](video, reference)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def zero_padded_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """The formula written out for one channel on [0, 1], with a window of two dimensions."""
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2

    def mean(z: np.ndarray) -> np.ndarray:
        return convolve2d(z, window, mode="same", boundary="fill", fillvalue=0)

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    above = (2 * mx * my + 0.0001) * (2 * cov + 0.0009)
    return float((above / ((mx**2 + my**2 + 0.0001) * (vx + vy + 0.0009))).mean())


def test_ssim_with_zero_padding_is_the_formula() -> None:
    video, reference = VIDEOS["b"][3:6], VIDEOS["a"][3:6]
    expected = [
        np.mean([zero_padded_ssim(x[..., c], y[..., c]) for c in range(3)])
        for x, y in zip(unit(video), unit(reference), strict=True)
    ]
    got = METRICS["gauss11-same"](video, reference)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_the_definitions_of_ssim_are_far_apart() -> None:
    """Why they have names: more than many papers' gains between them, on one pair."""
    valid, uniform, same = (METRICS[d](*two("a-b")).mean() for d in DEFINITIONS)
    assert valid == pytest.approx(0.709104, abs=1e-6)
    assert uniform == pytest.approx(0.732, abs=1e-3)
    assert abs(same - valid) > 0.005


# --- by hand


def test_psnr_of_one_step_of_grey() -> None:
    """All values off by 1 of 255: 20 log10(255) = 48.13 dB."""
    grey = np.full((1, 8, 8, 3), 100, np.uint8)
    assert PSNR()(grey + np.uint8(1), grey) == pytest.approx([48.1308036], abs=1e-6)


def test_psnr_of_white_against_black_is_0_dB() -> None:
    """Differences of uint8 must not wrap around, in either direction."""
    white = np.full((1, 8, 8, 3), 255, np.uint8)
    assert PSNR()(white, 0 * white) == [0.0]
    assert PSNR()(0 * white, white) == [0.0]


def test_psnr_caps_what_is_nearly_identical() -> None:
    """One value of 480×832×3 off by 1 is an MSE of 1.3e-11, below 1e-10."""
    reference = np.zeros((1, 480, 832, 3), np.uint8)
    video = reference.copy()
    video[0, 7, 7, 1] = 1
    assert PSNR()(video, reference) == [100.0]
    video[0, :10, 0, 1] = 1
    assert 98 < PSNR()(video, reference)[0] < 100


def test_psnr_with_another_cap_has_another_name() -> None:
    capped = build("metrics", {"kind": "psnr", "cap": 60}, "metric.psnr")
    assert capped(VIDEOS["a"], VIDEOS["a"]).tolist() == [60.0] * 9
    assert (capped.facts.name, capped.facts.upper_bound) == ("psnr/cap-60", 60.0)


def test_ssim_of_flat_frames() -> None:
    """Without variance only the first factor is left: (2 μx μy + C1) / (μx² + μy² + C1)."""
    x, y = np.full((1, 12, 12, 3), 51, np.uint8), np.full((1, 12, 12, 3), 102, np.uint8)
    expected = (2 * 0.2 * 0.4 + 1e-4) / (0.2**2 + 0.4**2 + 1e-4)
    for definition in ("gauss11-valid", "uniform7"):
        assert METRICS[definition](x, y) == pytest.approx([expected], abs=1e-7)


def test_each_frame_is_judged_alone() -> None:
    video, reference = two("a-d")
    for metric in METRICS.values():
        together = metric(video, reference)
        alone = [metric(video[i : i + 1], reference[i : i + 1])[0] for i in range(len(video))]
        assert together.shape == (9,)
        assert together.dtype == np.float64
        assert together.tolist() == alone


# --- laws


@every_metric
@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_a_video_is_identical_to_itself(metric: Any, seed: int) -> None:
    video = noise(seed)
    assert metric(video, video.copy()).tolist() == [metric.facts.upper_bound] * len(video)


@every_metric
@settings(max_examples=20)
@given(first=st.integers(0, 10**6), second=st.integers(0, 10**6))
def test_video_and_reference_may_be_swapped(metric: Any, first: int, second: int) -> None:
    x, y = noise(first), noise(second)
    assert metric(x, y).tolist() == metric(y, x).tolist()


@every_metric
@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_values_keep_to_the_bounds(metric: Any, seed: int) -> None:
    values = metric(noise(seed), 255 - noise(seed))
    assert (values >= metric.facts.lower_bound).all()
    assert (values < metric.facts.upper_bound).all()


@every_metric
@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_more_noise_is_worse(metric: Any, seed: int) -> None:
    reference = 96 + noise(seed, frames=1, height=24, width=24) // 4
    sign = np.where(noise(seed + 1, frames=1, height=24, width=24) < 128, -1, 1)
    noisy = [(reference + level * sign).astype(np.uint8) for level in (0, 4, 16, 64)]
    values = [metric(video, reference)[0] for video in noisy]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 4
    assert metric.facts.higher_is_better


# --- facts and configuration


def test_facts_name_the_definition() -> None:
    facts = [m.facts for m in METRICS.values()]
    names = [f.name for f in facts]
    assert names == ["psnr", "ssim/gauss11-valid", "ssim/uniform7", "ssim/gauss11-same"]
    assert [f.unit for f in facts] == ["dB", "", "", ""]
    assert all(f.version == 1 and f.needs_reference for f in facts)


@pytest.mark.parametrize("default", [PSNR(), SSIM()], ids=["psnr", "ssim"])
def test_the_yaml_writes_out_the_defaults(default: Any) -> None:
    text = (CONF / f"{default.kind}.yaml").read_text()
    assert text.splitlines()[0] == f"# @package metric.{default.kind}"
    written = yaml.safe_load(text)
    assert build("metrics", written, f"metric.{default.kind}") == default
    assert set(written) == {"kind"} | {f.name for f in dataclasses.fields(default)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "psnr", "cap": 0},
        {"kind": "psnr", "cap": "inf"},
        {"kind": "ssim", "definition": "gauss12"},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        build("metrics", wrong, "metric.it")


# --- refusals


@every_metric
def test_other_dtypes_are_refused_on_either_side(metric: Any) -> None:
    video = noise(0)
    with pytest.raises(UserError, match="the video of dtype float32"):
        metric(video.astype(np.float32) / 255, video)
    with pytest.raises(UserError, match="the reference of dtype int16"):
        metric(video, video.astype(np.int16))


@every_metric
def test_another_frame_count_is_refused_not_cut(metric: Any) -> None:
    with pytest.raises(UserError, match="2 frames against 3 of the reference"):
        metric(noise(0, frames=2), noise(0, frames=3))
    with pytest.raises(UserError, match="2 frames against 1 of the reference"):
        metric(noise(0, frames=2), noise(0, frames=1))  # would broadcast


@every_metric
def test_another_size_is_refused_not_resized(metric: Any) -> None:
    with pytest.raises(UserError, match="13×16 pixels against 14×16 of the reference"):
        metric(noise(0), noise(0, width=14))
    with pytest.raises(UserError, match="of shape"):
        metric(noise(0)[0], noise(0)[0])


@pytest.mark.parametrize(("definition", "size"), [("uniform7", 7), ("gauss11-valid", 11)])
def test_frames_smaller_than_the_window_are_refused(definition: str, size: int) -> None:
    metric = METRICS[definition]
    fits = noise(0, height=size, width=size)
    assert metric(fits, fits).tolist() == [1.0, 1.0]
    for small in (fits[:, 1:], fits[:, :, 1:]):
        with pytest.raises(UserError, match=f"at least {size}×{size}"):
            metric(small, small)


# --- on a GPU: torch's convolutions in float64, tried on a CPU device


@pytest.fixture
def by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """SSIM takes the GPU's way, whose device is this CPU."""
    monkeypatch.setattr("srbench.metrics.ssim.gpu_of", lambda device: "cpu")


@every_pair
@pytest.mark.parametrize("definition", DEFINITIONS)
def test_a_gpus_ssim_is_the_cpus(pair: str, definition: Any, by_torch: None) -> None:
    metric = SSIM(definition=definition)
    video, reference = two(pair)
    prepared = metric.prepare(reference)
    assert type(prepared[0]).__module__ == "srbench.metrics._ssim_gpu"
    here = METRICS[definition]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("srbench.metrics.ssim.gpu_of", lambda device: "")
        expected = here(video, reference)
    np.testing.assert_allclose(metric.compare(video, prepared), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(metric.compare(reference, prepared), 1.0, rtol=0, atol=1e-12)


def test_a_gpu_that_is_not_there_is_told_before_anything_is_scored() -> None:
    assert "metric.ssim.device=cuda:7" in SSIM(device="cuda:7").unavailable
    assert SSIM().unavailable == SSIM(device="cpu").unavailable == ""
    with pytest.raises(UserError, match="cuda"):
        build("metrics", {"kind": "ssim", "device": "mps"}, "metric.ssim")
