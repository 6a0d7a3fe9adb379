"""Decoding is a part of a score: one conversion for all formats, and no damaged frame passes."""

from __future__ import annotations

import os
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srbench import decoding, video
from srbench.errors import UserError
from srbench.metrics.psnr import PSNR
from srbench.video import Video, look, read

BT709, LIMITED, FULL = 1, 1, 2


def clip(frames: int = 9, height: int = 64, width: int = 96) -> Video:
    """Moving waves of color with some grain."""
    y, x = np.mgrid[:height, :width]
    grain = np.random.default_rng(0).normal(0, 4, (height, width, 3))
    made = [
        np.stack([128 + 70 * np.sin(x / 9 + t / 4 + c) + 40 * np.cos(y / 7 - t / 5) for c in range(3)], -1)
        + np.roll(grain, t, 1)
        for t in range(frames)
    ]
    return np.array(made).clip(0, 255).astype(np.uint8)


def write(
    path: Path,
    pixels: Video,
    codec: str = "libx264",
    format: str = "yuv420p",
    options: dict[str, str] | None = None,
    container: str | None = None,
    matrix: int | None = None,
    color_range: int | None = None,
    rotation: int | None = None,
    times: Any = None,
) -> Path:
    """A video as some tool writes it; `matrix` and `color_range` convert and tag."""
    with av.open(str(path), "w", format=container) as file:
        options = dict(options or {})
        if codec == "libx264":  # the same bytes each time
            options.setdefault("x264-params", "cpu-independent=1")
        stream: Any = file.add_stream(codec, rate=16, options=options)
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt, stream.codec_context.thread_count = format, 1
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if matrix is not None:
            stream.codec_context.colorspace = matrix
        if color_range is not None:
            stream.codec_context.color_range = color_range
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for i, one in enumerate(pixels):
            frame = av.VideoFrame.from_ndarray(one, format="rgb24").reformat(
                format=format, dst_colorspace=matrix, dst_color_range=color_range,
                interpolation=0x4 | 0x40000 | 0x2000,
            )  # fmt: skip
            frame.pts = i if times is None else times[i]
            frame.time_base = Fraction(1, 16 if times is None else 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def psnr(one: Path, other: Path | Video) -> float:
    return float(PSNR()(read(one)[0], read(other)[0] if isinstance(other, Path) else other).mean())


QP0 = {"qp": "0"}


def test_8_and_10_bits_of_one_clip_are_nearly_equal(tmp_path: Path) -> None:
    eight = write(tmp_path / "8.mp4", clip(), options=QP0)
    ten = write(tmp_path / "10.mp4", clip(), format="yuv420p10le", options=QP0)
    assert psnr(eight, ten) >= 48
    assert look(ten).encoding == "h264, yuv420p10le, matrix untagged (read as bt601), limited range"


@pytest.mark.parametrize(
    ("matrix", "color_range"), [(BT709, LIMITED), (BT709, FULL), (5, FULL), (9, LIMITED), (7, LIMITED)]
)
def test_every_matrix_and_range_gives_the_source_back(tmp_path: Path, matrix: int, color_range: int) -> None:
    tagged = write(
        tmp_path / "tagged.mp4", clip(), format="yuv444p", options=QP0, matrix=matrix, color_range=color_range
    )
    assert psnr(tagged, clip()) > 48
    about = look(tagged)
    assert about.matrix == decoding.MATRICES[matrix]
    assert about.color_range == decoding.RANGES[color_range]


def test_a_bt709_and_an_untagged_encoding_of_one_clip_are_alike(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.mp4", clip(), options=QP0)
    tagged = write(tmp_path / "tagged.mp4", clip(), options=QP0, matrix=BT709, color_range=LIMITED)
    assert psnr(plain, tagged) > 39
    assert look(plain).reading != look(tagged).reading


SUBSAMPLED = {
    "yuv420p": [("libx264", "mp4"), ("libx265", "mp4"), ("libvpx-vp9", "webm"), ("ffv1", "matroska")],
    "yuv422p": [("libx264", "mp4"), ("ffv1", "matroska")],
    "yuv420p10le": [("libx264", "mp4"), ("ffv1", "matroska")],
}
LOSSLESS = {
    "libx264": QP0,
    "libx265": {"x265-params": "lossless=1:log-level=none"},
    "libvpx-vp9": {"lossless": "1"},
}


@pytest.mark.parametrize("format", SUBSAMPLED)
def test_equal_planes_are_equal_pixels_whatever_the_codec(tmp_path: Path, format: str) -> None:
    """The decoder of H.264 tags chroma as left and that of VP9 as nothing; both are read as centered."""
    files = [
        write(tmp_path / f"{codec}.{container}", clip(), codec, format, LOSSLESS.get(codec), container)
        for codec, container in SUBSAMPLED[format]
    ]
    pixels, *others = [read(file)[0] for file in files]
    for other in others:
        np.testing.assert_array_equal(pixels, other)
    y, x = np.mgrid[:64, :96]
    smooth = np.stack([128 + 90 * np.sin(x / 9 + y / 8 + c) for c in range(3)], -1)
    source = np.array([smooth] * 3).astype(np.uint8)
    codec, container = SUBSAMPLED[format][0]
    file = write(tmp_path / f"smooth.{container}", source, codec, format, LOSSLESS[codec], container)
    assert psnr(file, source) > 48


@pytest.mark.parametrize(
    ("codec", "format", "container"),
    [("ffv1", "bgr0", "matroska"), ("libx264rgb", "rgb24", "mp4"), ("png", "rgb24", "mov")],
)
def test_formats_of_rgb_keep_every_value(tmp_path: Path, codec: str, format: str, container: str) -> None:
    options = QP0 if codec == "libx264rgb" else None
    file = write(tmp_path / "file", clip(), codec, format, options, container)
    np.testing.assert_array_equal(read(file)[0], clip())


def test_an_unsupported_matrix_is_named(tmp_path: Path) -> None:
    options = {"x264-params": "colormatrix=YCgCo"}
    with pytest.raises(UserError, match="color matrix"):
        look(write(tmp_path / "y.mp4", clip(), format="yuv444p", options=options))


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (-90, 3), (180, 2)])
def test_a_display_matrix_turns_the_frames(tmp_path: Path, rotation: int, turns: int) -> None:
    turned = write(tmp_path / "turned.mp4", clip(), options=QP0, rotation=rotation)
    plain = write(tmp_path / "plain.mp4", clip(), options=QP0)
    np.testing.assert_array_equal(read(turned)[0], np.rot90(read(plain)[0], turns, axes=(1, 2)))
    about = look(turned)
    assert (about.height, about.width) == read(turned)[0].shape[1:3]


def test_a_turn_by_an_odd_angle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="display matrix"):
        read(write(tmp_path / "turned.mp4", clip(), rotation=30))


# Frames

CONTAINERS = [
    ("libx264", "yuv420p", "mp4"),
    ("libx264", "yuv420p", "mpegts"),
    ("libx264", "yuv420p", "matroska"),
    ("libvpx-vp9", "yuv420p", "webm"),
    ("libvpx", "yuv420p", "webm"),  # with frames that are never shown
    ("mpeg4", "yuv420p", "avi"),
    ("mpeg2video", "yuv420p", "mpeg"),
    ("mjpeg", "yuvj420p", "avi"),
    ("gif", "rgb8", "gif"),
    ("ffv1", "yuv420p", "matroska"),
    ("prores_ks", "yuv422p10le", "mov"),
]


@pytest.mark.parametrize(("codec", "format", "container"), CONTAINERS)
def test_a_look_counts_the_frames_that_are_read(
    tmp_path: Path, codec: str, format: str, container: str
) -> None:
    options = {"auto-alt-ref": "1", "lag-in-frames": "16"} if codec == "libvpx" else {}
    file = write(tmp_path / "file", clip(33), codec, format, options, container)
    pixels, fps = read(file)
    assert look(file).frames == len(pixels) == 33
    assert look(file).fps == fps == 16  # of a GIF too, which counts in hundredths of a second


def test_frames_that_an_edit_list_leaves_out_are_not_counted(tmp_path: Path) -> None:
    """As `ffmpeg -ss 0.5 -c copy` trims: packets from the key frame on, shown from 8 frames later."""
    source = write(tmp_path / "source.mp4", clip(33), options={"bf": "0"})
    trimmed = tmp_path / "trimmed.mp4"
    with av.open(str(source)) as old, av.open(str(trimmed), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.size:
                packet.pts -= int(0.5 / packet.time_base)
                packet.dts -= int(0.5 / packet.time_base)
                packet.stream = stream
                new.mux(packet)
    assert look(trimmed).frames == len(read(trimmed)[0]) == 25
    np.testing.assert_array_equal(read(trimmed)[0], read(source)[0][8:])


def test_a_varying_frame_rate_has_its_average(tmp_path: Path) -> None:
    times = [i * 62 + i % 3 * 20 for i in range(9)]
    file = write(tmp_path / "file.mp4", clip(), times=times)
    assert look(file).frames == len(read(file)[0]) == 9
    assert 10 < look(file).fps < 20


# Damage


def damaged(path: Path, seed: int) -> Path:
    """A copy with eight places of its middle half overwritten by 40 bytes each."""
    content, rng = bytearray(path.read_bytes()), random.Random(seed)
    for _ in range(8):
        at = rng.randrange(len(content) // 4, len(content) * 3 // 4)
        content[at : at + 40] = rng.randbytes(40)
    made = path.with_name(f"{seed}-{path.name}")
    made.write_bytes(content)
    return made


DAMAGE = r"frames? \d+.* damaged, of \d+|error from frame \d+ on: \w+"
DETECTED = [c for c in CONTAINERS if c[0] in ("libx264", "mpeg4", "mpeg2video", "mjpeg", "gif", "ffv1")]


@pytest.mark.parametrize(("codec", "format", "container"), DETECTED)
def test_a_damaged_video_is_refused_with_its_frames(
    tmp_path: Path, codec: str, format: str, container: str
) -> None:
    options = {"crf": "8"} if codec == "libx264" else {}
    sound = write(tmp_path / "file", clip(33), codec, format, options, container)
    for file in (damaged(sound, seed) for seed in range(5)):
        for reader in (look, read, lambda path: list(video.chunks(path, 4))):
            with pytest.raises(UserError, match=DAMAGE):
                reader(file)


def test_a_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file.mp4"
    with av.open(str(file), "w", options={"movflags": "faststart"}) as made:
        stream: Any = made.add_stream("libx264", rate=16)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for one in clip(33):
            made.mux(stream.encode(av.VideoFrame.from_ndarray(one, format="rgb24")))
        made.mux(stream.encode())
    whole = file.read_bytes()
    for share in (0.6, 0.9, 0.99):
        file.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(UserError, match=r"ends after|damaged|error|incomplete"):
            look(file)


@settings(max_examples=40)
@given(data=st.data())
def test_no_file_ends_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever is cut off or overwritten: a look and a read agree, or the file is refused."""
    folder = tmp_path_factory.mktemp("files")
    codec, format, container = data.draw(st.sampled_from(CONTAINERS))
    content = bytearray(
        write(folder / "sound", clip(3, 16, 16), codec, format, container=container).read_bytes()
    )
    at = data.draw(st.integers(0, len(content)))
    content[at : at + 16] = data.draw(st.binary(max_size=16))
    file = folder / "file"
    file.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        frames = look(file).frames
    except UserError:
        return
    assert frames == len(read(file)[0])


# Files that are none


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("empty", "Invalid data"),
        ("text", "Invalid data"),
        ("playlist", "Invalid data|Invalid argument|Protocol not found"),
        ("folder", "a folder"),
        ("pipe", "not a regular file"),
        ("device", "not a regular file"),
        ("loop", "symbolic links"),
        ("dangling", "No such file"),
    ],
)
def test_what_is_no_video_is_refused_with_its_reason(tmp_path: Path, name: str, why: str) -> None:
    file = tmp_path / f"{name}.mp4"
    make = {
        "empty": lambda: file.write_bytes(b""),
        "text": lambda: file.write_text("not a video\n" * 50),
        "playlist": lambda: file.write_text("#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n"),
        "folder": file.mkdir,
        "pipe": lambda: os.mkfifo(file),
        "device": lambda: file.symlink_to("/dev/zero"),
        "loop": lambda: file.symlink_to(file),
        "dangling": lambda: file.symlink_to(tmp_path / "nowhere"),
    }
    make[name]()
    for reader in (look, read, video.header):
        with pytest.raises(UserError, match=why):
            reader(file)


def test_a_name_that_is_not_utf_8_or_looks_like_an_address_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("caf\udce9.mp4", "http:a dog.mp4"):
        write(tmp_path / "file.mp4", clip(2)).rename(tmp_path / name)
        assert look(Path(name)).frames == 2


def test_an_old_decoder_is_refused_by_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "file.mp4", clip(1))
    monkeypatch.setattr(av, "__version__", "16.1.0")
    decoding.require.cache_clear()
    try:
        with pytest.raises(UserError, match=r"PyAV 16\.1\.0\n.*17 or newer"):
            look(file)
    finally:
        decoding.require.cache_clear()
