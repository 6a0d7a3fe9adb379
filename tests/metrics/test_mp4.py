"""Metrics through mp4, and the encoder's own floor beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from srbench.errors import UserError
from srbench.metrics.mp4 import Mp4
from srbench.metrics.mp4_floor import Mp4Floor
from srbench.metrics.psnr import PSNR
from srbench.registry import build
from srbench.video import through_mp4

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
