"""Videos come back from disk exactly as they went there, and the same bytes each time."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srbench.errors import UserError
from srbench.video import check, read, write_lossless


def noise(frames: int = 5, height: int = 12, width: int = 20, seed: int = 0) -> np.ndarray:
    """The hardest video to compress: every value independent."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def write_h264(path: Path, video: np.ndarray, fps: int) -> None:
    """What everyone's videos are: mp4, yuv420p, lossy."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = video.shape[2], video.shape[1], "yuv420p"
        for frame in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@settings(max_examples=25)
@given(
    frames=st.integers(1, 6),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
def test_every_byte_comes_back(
    tmp_path_factory: pytest.TempPathFactory, frames: int, height: int, width: int, seed: int
) -> None:
    video = noise(frames, height, width, seed)
    path = tmp_path_factory.mktemp("video") / "video.webm"
    write_lossless(path, video, fps=16)
    back, _ = read(path)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, video)


def test_the_extremes_of_each_channel_come_back(tmp_path: Path) -> None:
    """Swapped channels, or a range of 16 to 235, would show here."""
    colours = [(r, g, b) for r in (0, 1, 255) for g in (0, 16, 255) for b in (0, 254, 255)]
    video = np.array(colours, dtype=np.uint8).reshape(27, 1, 1, 3).repeat(8, 1).repeat(8, 2)
    write_lossless(tmp_path / "video.webm", video, fps=8)
    np.testing.assert_array_equal(read(tmp_path / "video.webm")[0], video)


def test_more_frames_than_the_encoder_looks_ahead_come_back(tmp_path: Path) -> None:
    video = noise(frames=81)
    write_lossless(tmp_path / "video.webm", video, fps=16)
    np.testing.assert_array_equal(read(tmp_path / "video.webm")[0], video)


def test_a_view_with_strides_is_written_as_it_looks(tmp_path: Path) -> None:
    video = noise()[::-1, :, ::2, ::-1]
    write_lossless(tmp_path / "video.webm", video, fps=16)
    np.testing.assert_array_equal(read(tmp_path / "video.webm")[0], video)


@pytest.mark.parametrize("fps", [1, 8, 15, 16, 24, 30, 60, 1000])
def test_the_frame_rate_comes_back(tmp_path: Path, fps: int) -> None:
    write_lossless(tmp_path / "video.webm", noise(), fps)
    assert read(tmp_path / "video.webm")[1] == Fraction(fps)


def test_two_writes_are_byte_equal(tmp_path: Path) -> None:
    for name in ("first.webm", "second.webm"):
        write_lossless(tmp_path / name, noise(frames=30), fps=16)
    assert (tmp_path / "first.webm").read_bytes() == (tmp_path / "second.webm").read_bytes()


def test_the_file_is_rgb_vp9(tmp_path: Path) -> None:
    """What the page shows in a browser is the master itself."""
    write_lossless(tmp_path / "video.webm", noise(), fps=16)
    with av.open(str(tmp_path / "video.webm")) as container:
        assert "webm" in container.format.name
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("vp9", "gbrp")


def test_an_ordinary_mp4_is_read_nearly(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    video = np.broadcast_to(ramp[None, None, :, None], (6, 48, 64, 3)).copy()
    write_h264(tmp_path / "video.mp4", video, fps=25)
    back, fps = read(tmp_path / "video.mp4")
    assert (back.shape, back.dtype, fps) == (video.shape, np.uint8, 25)
    assert np.abs(back.astype(int) - video).mean() < 3


@pytest.mark.parametrize(
    ("video", "got"),
    [
        ([[0]], "type list"),
        (np.zeros((2, 8, 8, 3), np.float32), "dtype float32"),
        (np.zeros((2, 8, 8, 3), np.int8), "dtype int8"),
        (np.zeros((8, 8, 3), np.uint8), "shape (8, 8, 3)"),
        (np.zeros((1, 2, 8, 8, 3), np.uint8), "shape (1, 2, 8, 8, 3)"),
        (np.zeros((2, 3, 8, 8), np.uint8), "shape (2, 3, 8, 8)"),
        (np.zeros((2, 8, 8, 4), np.uint8), "shape (2, 8, 8, 4)"),
        (np.zeros((0, 8, 8, 3), np.uint8), "shape (0, 8, 8, 3)"),
        (np.zeros((2, 0, 8, 3), np.uint8), "shape (2, 0, 8, 3)"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path: Path, video: object, got: str) -> None:
    with pytest.raises(UserError) as refused:
        check(video, "the reference")
    assert refused.value.got == f"the reference of {got}"
    with pytest.raises(UserError):
        write_lossless(tmp_path / "video.webm", video, fps=16)  # type: ignore[arg-type]
    assert not (tmp_path / "video.webm").exists()


def test_a_video_passes_the_check() -> None:
    check(noise(), "the video")


@pytest.mark.parametrize("fps", [0, -8, 1001, 7.5])
def test_a_frame_rate_that_webm_cannot_hold_is_refused(tmp_path: Path, fps: float) -> None:
    with pytest.raises(UserError, match="fps"):
        write_lossless(tmp_path / "video.webm", noise(), fps)  # type: ignore[arg-type]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent.webm: No such file"):
        read(tmp_path / "absent.webm")
    (tmp_path / "text.webm").write_text("not a video")
    with pytest.raises(UserError, match=r"text.webm: Invalid data"):
        read(tmp_path / "text.webm")
    with pytest.raises(UserError, match=r"a folder\nexpected: a video file\n"):
        read(tmp_path)


def test_a_file_without_pictures_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
    with pytest.raises(UserError, match="no video stream"):
        read(tmp_path / "sound.wav")


def test_videos_and_similarity_need_no_torch() -> None:
    code = (
        "import sys, srbench.video, srbench.metrics.psnr, srbench.metrics.ssim;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
