"""Metrics through mp4, and the encoder's own floor beside them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from srbench.config.registry import build
from srbench.errors import UserError
from srbench.metrics.mp4 import Mp4
from srbench.metrics.mp4_floor import Mp4Floor
from srbench.metrics.psnr import PSNR
from srbench.video import Video, through_mp4

VIDEOS = {k: v[:, :66, :92] for k, v in np.load(Path(__file__).parent / "oracle.npz").items()}
CONF = Path(__file__).parents[2] / "conf" / "metric"


def test_the_encoders_settings_are_in_the_name() -> None:
    assert Mp4(of="psnr", crf=18, preset="fast", fps=8).facts.name == "psnr/x264-fast-crf18-8fps"
    (name,) = Mp4Floor(of="psnr", crf=18, preset="fast", fps=8).dimensions("any prompt")
    assert name == "psnr/x264-fast-crf18-8fps/floor"


def test_both_videos_go_through_the_encoder() -> None:
    x, y = VIDEOS["b"], VIDEOS["a"]
    expected = PSNR()(through_mp4(x, 16, 25, "medium"), through_mp4(y, 16, 25, "medium"))
    assert Mp4(of="psnr", fps=16)(x, y).tolist() == expected.tolist()
    assert expected.tolist() != PSNR()(x, y).tolist()


def test_the_same_video_gives_the_same_bytes_every_time() -> None:
    first = through_mp4(VIDEOS["b"], 16, 25, "medium")
    assert all(np.array_equal(through_mp4(VIDEOS["b"], 16, 25, "medium"), first) for _ in range(12))


def test_the_conversions_are_those_of_ffmpegs_command_line(tmp_path: Path) -> None:
    """As imageio pipes it for diffusers' export_to_video and for the evaluation scripts."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()

    def exported(video: Video, *x264: str) -> Video:
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24"]
        size = ["-s", f"{video.shape[2]}x{video.shape[1]}", "-r", "8.00"]
        quality = ["-vcodec", "libx264", "-pix_fmt", "yuv420p", "-crf", "25"]
        file = str(tmp_path / "file.mp4")
        write = [ffmpeg, "-y", "-v", "error", *raw, *size, "-i", "-", *quality, *x264, file]
        subprocess.run(write, input=video.tobytes(), check=True)
        read = [ffmpeg, "-v", "error", "-i", file, *raw, "-"]
        shown = subprocess.run(read, stdout=subprocess.PIPE, check=True).stdout
        return np.frombuffer(shown, np.uint8).reshape(video.shape)

    alike = "-threads", "1", "-x264-params", "cpu-independent=1"
    x, y = VIDEOS["b"], VIDEOS["a"]
    np.testing.assert_array_equal(through_mp4(x, 8, 25, "medium"), exported(x, *alike))
    default = PSNR()(exported(x), exported(y)).mean()
    assert Mp4(of="psnr", fps=8)(x, y).mean() == pytest.approx(default, abs=0.3)  # x264's settings


def test_x264_knows_how_long_a_frame_lasts() -> None:
    slow, fast = (through_mp4(VIDEOS["b"], fps, 25, "medium") for fps in (1, 60))
    assert not np.array_equal(slow, fast)


def test_an_experiments_metrics_take_its_familys_frame_rate() -> None:
    metric = build("metrics", {"kind": "mp4", "of": "psnr"}, "metric.psnr_mp4")
    assert metric.at_fps(8).facts.name == "psnr/x264-medium-crf25-8fps"
    assert metric.at_fps(24000 / 1001).facts.name == "psnr/x264-medium-crf25-23.976fps"
    assert Mp4(of="psnr", fps=16).at_fps(8).fps == 16  # what is set stays
    with pytest.raises(UserError, match="without a known frame rate"):
        metric(VIDEOS["a"], VIDEOS["a"])


def test_a_video_is_identical_to_itself_also_through_mp4() -> None:
    assert Mp4(of="ssim/gauss11-valid", fps=16)(VIDEOS["a"], VIDEOS["a"]).tolist() == [1.0] * 9


def test_the_floor_rises_with_the_encoders_quality() -> None:
    floors = [
        Mp4Floor(of="psnr", crf=crf, fps=16)(VIDEOS["a"], "")[f"psnr/x264-medium-crf{crf}-16fps/floor"]
        for crf in (40, 25, 10)
    ]
    assert floors == sorted(floors)
    assert floors[-1] < 60  # 4:2:0 alone loses something


def test_the_floor_needs_no_reference() -> None:
    facts = Mp4Floor(of="lpips/alex", fps=16).dimensions("")["lpips/alex/x264-medium-crf25-16fps/floor"]
    assert not facts.needs_reference
    assert facts.group == "similarity"


def test_an_odd_size_is_refused() -> None:
    odd = VIDEOS["a"][:, :65]
    with pytest.raises(UserError, match="92×65 pixels"):
        Mp4(of="psnr", fps=16)(odd, odd)


@pytest.mark.parametrize("name", ["psnr_mp4", "ssim_mp4", "lpips_mp4"])
def test_the_yaml_has_the_metric_and_its_floor(name: str) -> None:
    written = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert list(written) == [name, f"{name}_floor"]
    metric = build("metrics", written[name], name)
    assert metric == Mp4(of=metric.of) and metric.at_fps(8).way.endswith("-8fps")
    for field in ("of", "crf", "preset", "fps"):
        assert written[f"{name}_floor"][field] == f"${{metric.{name}.{field}}}"
