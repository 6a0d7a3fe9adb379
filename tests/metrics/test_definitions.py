"""The page of definitions, and what is told of frames at a metric's best value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from srbench import video
from srbench.cli.definitions import DEFINITIONS, Table, by_scikit_image, main, through_mp4
from srbench.metrics.base import unavailable
from srbench.metrics.mp4 import Mp4
from srbench.metrics.mp4_floor import Mp4Floor
from srbench.metrics.psnr import PSNR
from srbench.metrics.ssim import SSIM
from srbench.store.records import MetricFacts, Score

HERE = Path(__file__).parent
THROUGH_MP4 = through_mp4(16)
PAGE = (HERE.parents[1] / "experiments" / "metrics.md").read_text()
# cut to an even size, as yuv420p wants it
VIDEOS = {k: v[:, :66, :92] for k, v in np.load(HERE / "oracle.npz").items()}


@pytest.mark.parametrize("metric", DEFINITIONS + THROUGH_MP4, ids=lambda m: m.facts.name)
def test_the_page_says_what_the_code_computes(metric) -> None:
    if lacking := unavailable(metric):
        pytest.skip(lacking)
    columns = {"noisier frame by frame": VIDEOS["b"], "another scene": VIDEOS["d"], "itself": VIDEOS["a"]}
    head, _, line = Table(columns, VIDEOS["a"]).lines([metric])
    assert head in PAGE
    if metric not in THROUGH_MP4:  # another build of x264 may end elsewhere
        assert line in PAGE
    assert f"`{metric.facts.name}`" in PAGE


def test_the_command_shows_every_definition(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        video.write_lossless(tmp_path / f"{name}.webm", VIDEOS[name][:2], 8)
    assert main([str(tmp_path / "b.webm"), "--reference", str(tmp_path / "a.webm")]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("| definition | version | b.webm |\n")
    assert all(f"`{m.facts.name}`" in shown for m in DEFINITIONS + through_mp4(8))
    assert "(1 of 2 frames at 100; 90.7353 without)" in shown


@pytest.mark.parametrize("pair", ["ba", "da", "aa", "bd"])
def test_scikit_image_agrees_with_every_definition_that_it_has(pair: str) -> None:
    own, reference = (VIDEOS[name] for name in pair)
    known = [m for m in DEFINITIONS if isinstance(m, PSNR | SSIM)]
    assert len(known) == 4
    for metric in known:
        theirs = by_scikit_image(metric, own, reference)
        np.testing.assert_allclose(theirs, metric(own, reference), rtol=0, atol=1e-10)


def test_the_command_shows_scikit_images_numbers_beside_ours() -> None:
    head, _, psnr, *ssim = Table({"fits": VIDEOS["b"], "small": VIDEOS["b"][:, :9]}, VIDEOS["a"]).independent(
        DEFINITIONS
    )
    assert head.startswith("| by scikit-image ") and head.endswith(" | fits | small |")
    assert psnr.startswith("| `psnr` | 41.6084 (differs by ") and "| –: 92×9 pixels against" in psnr
    assert [line.split("`")[1] for line in ssim] == [
        "ssim/gauss11-valid",
        "ssim/uniform7",
        "ssim/gauss11-same",
    ]


def test_each_video_is_encoded_once_and_the_floor_is_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    encoded = video.encoded
    monkeypatch.setattr(video, "encoded", lambda *given: made.append(1) or encoded(*given))
    metrics = [Mp4(of="psnr", fps=16), Mp4(of="ssim/gauss11-valid", fps=16)]
    table = Table({"one": VIDEOS["b"], "two|three": VIDEOS["d"]}, VIDEOS["a"])
    head, _, psnr, _ = table.lines(metrics)
    floor = table.floor(metrics)
    assert len(made) == 3
    assert head.endswith("| one | two\\|three |")
    assert f"| {metrics[0](VIDEOS['b'], VIDEOS['a']).mean():.4f} |" in psnr
    ((_, value),) = Mp4Floor(of="psnr", fps=16)(VIDEOS["a"], "").items()
    assert f": {value:.4f} (psnr), " in floor


def test_videos_of_another_size_have_a_dash_and_the_others_their_numbers() -> None:
    table = Table({"fits": VIDEOS["b"], "smaller": VIDEOS["b"][:, :, :90]}, VIDEOS["a"])
    *_, psnr, mp4 = table.lines([PSNR(), Mp4(of="psnr", fps=16)])
    for line in (psnr, mp4):
        assert line.endswith("| –: 90×66 pixels against 92×66 of the reference |")


def test_a_difference_of_format_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video.write_lossless(tmp_path / "a.webm", VIDEOS["a"][:2], 8)
    (tmp_path / "a.mp4").write_bytes(video.encoded(iter([VIDEOS["a"][:2]]), 8, 10, "fast"))
    assert main([str(tmp_path / "a.mp4"), "--reference", str(tmp_path / "a.webm")]) == 0
    said = capsys.readouterr().err
    assert "a.mp4 (h264, yuv420p, matrix untagged (read as bt601), limited range)" in said
    assert "the reference (vp9, gbrp)" in said


def test_a_video_that_is_not_there_is_a_mistake_to_mend(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nowhere.mp4", "--reference", "nowhere.mp4"]) == 2
    assert "nowhere.mp4" in capsys.readouterr().err


def test_frames_at_the_cap_are_counted_and_left_out() -> None:
    psnr = MetricFacts(
        name="psnr", version=1, unit="dB", higher_is_better=True, lower_bound=0, upper_bound=100
    )
    score = Score(metric=psnr, value=65.0, per_frame=(100.0, 30.0, 30.0, 100.0))
    assert (score.at_bound, score.value_below_bound) == (2, 30.0)
    assert Score(metric=psnr, value=100.0, per_frame=(100.0,)).value_below_bound is None


def test_for_a_distance_the_best_value_is_the_lower_bound() -> None:
    lpips = MetricFacts(name="lpips/alex", version=1, unit="", higher_is_better=False, lower_bound=0)
    score = Score(metric=lpips, value=0.1, per_frame=(0.0, 0.2))
    assert (score.at_bound, score.value_below_bound) == (1, 0.2)
