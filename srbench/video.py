"""Videos as arrays and as files, exact both ways.

A video is a uint8 array (frames, height, width, 3), RGB, 0 to 255, everywhere outside a
model.  On disk the master is lossless VP9 in RGB (WebM): it gives every byte back and plays
in Chromium, so what is measured is what is seen.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
from av.codec.context import Flags
from numpy.typing import NDArray

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

    Files of `write_lossless` come back exactly.  Others, as H.264 in yuv420p, are converted
    to RGB by FFmpeg's swscale.  Raises UserError where there is no video to read.
    """
    facts = look(path)
    return np.concatenate(list(chunks(path, 64))), facts.fps


def chunks(path: Path, frames: int) -> Iterator[Video]:
    """The video's frames in order, as many at a time as asked, the rest last.

    Never holds more than that.  Raises UserError, when begun, where there is no video to read.
    """
    count = 0
    with _opened(path) as (container, stream):
        for chunk in _stacked(container.decode(stream), frames):
            count += len(chunk)
            yield chunk
    if not count:
        raise _unreadable(path, "no frames")


@dataclass(frozen=True)
class Look:
    """What a container says of its video; frames counted by their packets, nothing decoded."""

    frames: int
    width: int
    height: int
    fps: Fraction
    codec: str
    pixels: str


def look(path: Path) -> Look:
    """A video's frame count, size, frames a second and encoding.

    Raises UserError where there is no video to read.
    """
    with _opened(path) as (container, stream):
        fps = stream.average_rate or stream.guessed_rate
        if not fps:
            raise _unreadable(path, "no frame rate")
        about = stream.codec_context
        size, codec, pixels = (about.width, about.height), about.name, about.pix_fmt or "unknown"
        frames = sum(1 for packet in container.demux(stream) if packet.size)
    return Look(frames, *size, fps, codec, pixels)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An open container and its first video stream.  Raises UserError for any trouble with it."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise _unreadable(path, "no video stream in it")
            yield container, container.streams.video[0]
    except (av.FFmpegError, OSError) as error:
        raise _unreadable(path, error.strerror or str(error)) from None


def through_mp4(video: Video, fps: int, crf: int, preset: str) -> Video:
    """The video as a viewer of an mp4 gets it: H.264 by libx264 in yuv420p, and back to RGB.

    One thread and x264's cpu-independent choices, so the same video and settings give the same
    bytes; by default some of its choices differ from one encoding to the next.  Raises
    UserError for a bad video, and for an odd width or height, which 4:2:0 cannot hold.
    """
    return np.concatenate(list(decoded(encoded(iter([video]), fps, crf, preset), len(video))))


def encoded(video: Iterator[Video], fps: int, crf: int, preset: str) -> bytes:
    """The mp4 that `through_mp4` reads back, of a video in chunks.  Raises UserError: see there."""
    held = io.BytesIO()
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
                frame.pts = count
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
    """Decoded frames as RGB, so many at a time, the rest last."""
    held: list[Any] = []
    for frame in decoded:
        held.append(frame.to_ndarray(format="rgb24"))
        if len(held) == frames:
            yield np.stack(held)
            held = []
    if held:
        yield np.stack(held)


def _unreadable(path: Path, why: str) -> UserError:
    if path.is_dir():
        return UserError(f"{path}, a folder", "a video file", "name one of the files in it")
    return UserError(
        f"{path}: {why}",
        "a video file that FFmpeg can read",
        "check the path, and that the file was written to its end",
    )
