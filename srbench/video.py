"""Videos as arrays and as files.

A video is a uint8 array (frames, height, width, 3), RGB, 0 to 255, everywhere outside a
model.  On disk the master is lossless VP9 in RGB (WebM): it gives every byte back and plays
in Chromium, so what is measured is what is seen.  `srbench.decoding` reads files of any kind.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
from av.codec.context import Flags
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from srbench import decoding
from srbench.errors import UserError

Video: TypeAlias = NDArray[np.uint8]

# WebM's clock ticks in milliseconds: above this, two frames would share a time.
MAX_FPS = 1000
# cpu-used and deadline trade encoding time for size only; lossless=1 keeps every byte.
# 5 takes about a third of the default's time, for files within 2 % of the same size.
_VP9 = {"lossless": "1", "deadline": "good", "cpu-used": "5", "row-mt": "0"}


def check(video: Any, what: str) -> None:
    """Refuse what is not a uint8 RGB video (frames, height, width, 3) with pixels in it.

    `what` names the video in the message, as "the reference".  Raises UserError.
    """
    if not isinstance(video, np.ndarray):
        raise UserError(
            f"{what} of type {type(video).__name__}",
            "a numpy array (frames, height, width, 3)",
            "convert it to uint8 RGB, or read it with srbench.video.read",
        )
    if video.dtype != np.uint8:
        raise UserError(
            f"{what} of dtype {video.dtype}",
            "uint8 values from 0 to 255",
            "if its values are in [0, 1], pass (255 * video).round().astype('uint8')",
        )
    if video.ndim != 4 or video.shape[-1] != 3:
        raise UserError(
            f"{what} of shape {video.shape}",
            "(frames, height, width, 3): four axes, RGB last",
            "move the channels last, drop alpha, and take one video of a batch",
        )
    if video.size == 0:
        raise UserError(
            f"{what} of shape {video.shape}",
            "at least one frame of at least one pixel",
            "see whether the video was generated or decoded at all",
        )


def write_lossless(path: Path, video: Video, fps: int) -> None:
    """Write `video` as lossless VP9 in RGB (WebM), `fps` frames a second.

    The same video and fps give the same bytes in any process with the same PyAV build.  An
    interrupted call leaves a partial file, so write beside the target and rename.

    Raises UserError for a bad video, or for an fps that is not a whole number from 1 to 1000.
    """
    decoding.require()
    check(video, "the video to write")
    if not isinstance(fps, int) or not 1 <= fps <= MAX_FPS:
        raise UserError(f"fps = {fps}", f"a whole number from 1 to {MAX_FPS}", "set the family's fps")
    # bitexact keeps random segment ids, dates and library versions out of the file
    with av.open(str(path), "w", format="webm", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libvpx-vp9", rate=fps, options=_VP9)
        stream.width, stream.height, stream.pix_fmt = video.shape[2], video.shape[1], "gbrp"
        stream.codec_context.thread_count = 1
        stream.codec_context.flags |= Flags.bitexact
        for frame in video:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def read(path: Path) -> tuple[Video, Fraction]:
    """Read all frames of the first video stream, and its frames a second.

    Files of `write_lossless` come back exactly.  Others are converted to RGB as
    `srbench.decoding` says.  Raises UserError where there is no video to read, or a damaged one.
    """
    with decoding.opened(path) as (container, stream):
        passed, rgb = decoding.Decoding(container, stream), decoding.Converter(path)
        frames = [rgb(frame) for frame in passed]
        return np.stack(_sound(path, passed, frames)), _rate(path, stream, passed.times)


def chunks(path: Path, frames: int) -> Iterator[Video]:
    """The video's frames in order, as many at a time as asked, the rest last.

    Never holds more than that.  Raises UserError, when begun, where there is no video to read,
    and instead of the first damaged frame, with the numbers of all.
    """
    with decoding.opened(path) as (container, stream):
        passed, rgb = decoding.Decoding(container, stream), decoding.Converter(path)
        held: list[Any] = []
        for frame in passed:
            if passed.damage:
                continue
            held.append(rgb(frame))
            if len(held) == frames:
                yield np.stack(held)
                held = []
        if _sound(path, passed, held):
            yield np.stack(held)


def _sound(path: Path, passed: decoding.Decoding, frames: list[Any]) -> list[Any]:
    if passed.damage or not passed.count:
        raise decoding.unreadable(path, passed.damage or "no frames")
    return frames


def _rate(path: Path, stream: Any, times: Sequence[int | None]) -> Fraction:
    fps = decoding.rate(stream, times)
    if not fps:
        raise decoding.unreadable(path, "no frame rate")
    return fps


@dataclass(frozen=True)
class Header:
    """What a container says of its video, with nothing decoded.

    packets: as many as frames in files that srbench writes; elsewhere `look` counts frames.
    """

    packets: int
    width: int
    height: int
    fps: Fraction
    codec: str
    pixels: str


def header(path: Path) -> Header:
    """Read a container's facts.  Raises UserError where there is no video to read."""
    with decoding.opened(path) as (container, stream):
        about = stream.codec_context
        fps = _rate(path, stream, [])
        packets = sum(1 for packet in container.demux(stream) if packet.size and not packet.is_discard)
        size, pixels = (about.width, about.height), about.pix_fmt or "unknown"
        return Header(packets, *size, fps, about.codec.canonical_name, pixels)


@dataclass(frozen=True)
class Look:
    """What a file's video is once decoded: what two videos must share, and what their pixels mean.

    frames: as many as `read` gives.  width, height: upright.  matrix, color_range: as tagged,
    see `decoding.matrix_of` and `range_of`.  decoder: who read it, with versions.
    """

    frames: int
    width: int
    height: int
    fps: Fraction
    codec: str
    pixels: str
    matrix: str
    color_range: str
    decoder: str

    @property
    def encoding(self) -> str:
        """As in `h264, yuv420p, matrix bt709, limited range`."""
        if self.matrix == "rgb":
            return f"{self.codec}, {self.pixels}"
        matrix = "untagged (read as bt601)" if self.matrix == "untagged" else self.matrix
        return f"{self.codec}, {self.pixels}, matrix {matrix}, {self.reading[2]} range"

    @property
    def reading(self) -> tuple[str, str, str]:
        """Pixel format, matrix and range by which the pixels are converted to RGB."""
        full = self.color_range == "full" or self.pixels.startswith(("yuvj", "gray"))
        matrix = "bt601" if self.matrix == "untagged" else self.matrix
        return self.pixels, matrix, "full" if full else "limited"


def look(path: Path) -> Look:
    """Decode a video once for its facts, without converting it.

    Raises UserError where there is no video to read, or a damaged one, with the frames' numbers.
    """
    with decoding.opened(path) as (container, stream):
        passed, rgb = decoding.Decoding(container, stream), decoding.Converter(path)
        first: Any = None
        for frame in passed:
            rgb.check(frame)
            first = first or frame
        _sound(path, passed, [])
        height, width = decoding.upright(
            path, np.zeros((first.height, first.width, 3), np.uint8), first
        ).shape[:2]
        about = stream.codec_context
        return Look(
            frames=passed.count,
            width=width,
            height=height,
            fps=_rate(path, stream, passed.times),
            codec=about.codec.canonical_name,
            pixels=first.format.name,
            matrix=decoding.matrix_of(path, first),
            color_range=decoding.range_of(first),
            decoder=f"{about.codec.name} of FFmpeg {av.ffmpeg_version_info}, PyAV {av.__version__}",
        )


def through_mp4(video: Video, fps: Fraction | int, crf: int, preset: str) -> Video:
    """The video as a viewer of an mp4 gets it: H.264 by libx264 in yuv420p, and back to RGB.

    Both conversions are those of ffmpeg's command line and so of imageio, which pipes it.  x264
    runs in one thread and with its cpu-independent choices, so that the same video and settings
    give the same bytes: by default its AVX-512 code chooses differently from one encoding to the
    next.  Raises UserError for a bad video, and for an odd width or height, which 4:2:0 cannot hold.
    """
    return np.concatenate(list(decoded(encoded(iter([video]), fps, crf, preset), len(video))))


def encoded(video: Iterator[Video], fps: Fraction | int, crf: int, preset: str) -> bytes:
    """The mp4 that `through_mp4` reads back, of a video in chunks.  Raises UserError: see there."""
    decoding.require()
    held, fps = io.BytesIO(), Fraction(fps)
    bicubic, reformatter = 4, VideoReformatter()  # swscale's flag
    options = {"crf": str(crf), "preset": preset, "x264-params": "cpu-independent=1"}
    with av.open(held, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=fps, options=options)
        stream.pix_fmt, stream.codec_context.thread_count = "yuv420p", 1
        count = 0
        for chunk in video:
            _check_even(chunk)
            if not count:
                stream.height, stream.width = chunk.shape[1:3]
            for pixels in chunk:
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame = reformatter.reformat(frame, format="yuv420p", interpolation=bicubic, threads=1)
                # x264 spends bits by a frame's duration, which it takes from these
                frame.pts, frame.time_base, frame.duration = count, 1 / fps, 1
                container.mux(stream.encode(frame))
                count += 1
        container.mux(stream.encode())
    return held.getvalue()


def decoded(mp4: bytes, frames: int) -> Iterator[Video]:
    """What `encoded` wrote, as many frames at a time as asked, the rest last."""
    container: Any
    with av.open(io.BytesIO(mp4)) as container:
        yield from _stacked(container.decode(video=0), frames)


def _check_even(chunk: Video) -> None:
    check(chunk, "the video to encode")
    if chunk.shape[1] % 2 or chunk.shape[2] % 2:
        raise UserError(
            f"{chunk.shape[2]}×{chunk.shape[1]} pixels",
            "an even width and height, as yuv420p halves both",
            "leave out the metrics through mp4",
        )


def _stacked(decoded: Iterator[Any], frames: int) -> Iterator[Video]:
    """Decoded frames as RGB by ffmpeg's default conversion, so many at a time, the rest last."""
    held: list[Any] = []
    for frame in decoded:
        held.append(frame.to_ndarray(format="rgb24"))
        if len(held) == frames:
            yield np.stack(held)
            held = []
    if held:
        yield np.stack(held)
