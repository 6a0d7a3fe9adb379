"""How the frames of a video file become RGB, for every container, codec and pixel format alike.

The conversion is a part of every number that is measured on a lossy file, so there is one:
swscale's bicubic filter with accurate rounding and full chroma interpolation, by the matrix
and range that the frame is tagged with.  A frame without a matrix is read as BT.601, and one
without a range as limited (gray and JPEG formats: full), as FFmpeg does.  A chroma sample lies in the
center of its pixels, where swscale puts it when it encodes RGB, whatever the tag or the codec says.
Alpha is dropped.  Formats that hold RGB keep their values exactly.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.filter
import av.logging
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from srbench.errors import UserError

CONVERSION = "swscale bicubic+accurate_rnd+full_chroma_int, chroma at the center, version 3"
"""Names the conversion; a number on lossy files holds for one version of it."""

# libswscale's public flags BICUBIC, ACCURATE_RND, FULL_CHR_H_INT and BITEXACT (equal on every CPU).
# PyAV 17 takes them as numbers only.
_FLAGS = 0x4 | 0x40000 | 0x2000 | 0x80000
OLDEST_AV = 17  # before it BT.709 frames were converted with BT.601's matrix
_BT601, _UNTAGGED = 5, 2
# FFmpeg's AVColorSpace of those that swscale converts.
MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"}
RANGES = {1: "limited", 2: "full"}
SHOWN = 12  # numbers of damaged frames in a message


@functools.cache
def require() -> None:
    """Raise UserError where the installed PyAV converts colors wrongly."""
    if int(av.__version__.partition(".")[0]) < OLDEST_AV:
        raise UserError(
            f"PyAV {av.__version__}",
            f"PyAV {OLDEST_AV} or newer: older ones convert BT.709 video with the matrix of BT.601",
            f"run: python -m pip install 'av>={OLDEST_AV}'",
        )


def unreadable(path: Path, why: str) -> UserError:
    """The mistake that a file is no video; `why` is the reason in a few words."""
    if _is_folder(path):
        return UserError(f"{path}, a folder", "a video file", "name one of the files in it")
    return UserError(
        f"{path}: {why}",
        "a video file that FFmpeg can read",
        "check the path, and that the file was written to its end",
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """An open container and its first video stream, cover pictures aside.

    Raises UserError for any trouble with the file, also while it is being read.
    """
    require()
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would never end
            raise unreadable(path, "not a regular file")
        # an absolute path is never taken for an address, as `a: b.mp4` is
        # and a playlist in it leads to no other machine
        with av.open(os.path.abspath(path), options={"protocol_whitelist": "file"}) as container:
            yield container, _video_stream(path, container)
    except UserError:
        raise
    except (av.FFmpegError, OSError) as error:
        raise unreadable(path, error.strerror or str(error)) from None
    except (ValueError, OverflowError, IndexError, AttributeError) as error:  # PyAV's own, of odd headers
        raise unreadable(path, str(error)) from None


def _video_stream(path: Path, container: Any) -> Any:
    pictures = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & pictures]
    if not streams:
        raise unreadable(path, "no video stream in it")
    if streams[0].codec_context is None:
        raise unreadable(path, "no decoder for its codec")
    return streams[0]


class Decoding:
    """One pass over all frames of a stream, in the order in which they are shown.

    Frames that an edit list leaves out do not come.  After the pass, `count` frames came and
    `damage` says what is wrong with the file, in a few words, or is empty.

    Damage is what FFmpeg knows of: frames that it flags, packets that it refuses, and what a
    decoder logs as an error, since some set no flag.  One thread decodes, as logs go by thread.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        self._container, self._stream = container, stream
        self.count = 0
        self.times: list[int | None] = []  # of every frame, in ticks of the stream
        self._packets, self._ended = 0, False
        self._frames: list[int] = []  # flagged as damaged, the first being 1
        self._errors: dict[str, int] = {}  # of the decoder, with the first packet of each
        stream.codec_context.thread_count = 1

    def __iter__(self) -> Iterator[Any]:
        packets = iter(self._container.demux(self._stream))
        while (frames := self._next(packets)) is not None:
            for frame in frames:
                self.count += 1
                self.times.append(frame.pts)
                if frame.is_corrupt:
                    self._frames.append(self.count)
                yield frame
        self._ended = True

    def _next(self, packets: Iterator[Any]) -> list[Any] | None:
        """The frames of the next packet; None at the end."""
        frames: list[Any] = []
        with _errors_logged() as logged:
            packet = next(packets, None)
            if packet is not None:
                self._packets += bool(packet.size)
                try:
                    frames = packet.decode()
                except EOFError:
                    pass
                except av.FFmpegError as error:
                    logged.append(error.strerror or str(error))
                if packet.is_corrupt:
                    logged.append("the packet is incomplete")
        for line in logged:
            self._errors.setdefault(line, max(self._packets, 1))
        return frames if packet is not None else None

    @property
    def damage(self) -> str:
        """As in `frames 1, 5 and 7 of 33 are damaged`; empty for a sound file."""
        parts = []
        if self._frames:
            numbers = [str(n) for n in self._frames[:SHOWN]]
            more = f" and {len(self._frames) - SHOWN} more" if len(self._frames) > SHOWN else ""
            verb = "frames {} are" if len(self._frames) > 1 else "frame {} is"
            parts.append(f"{verb.format(', '.join(numbers) + more)} damaged, of {self.count}")
        elif self._errors:
            line, packet = next(iter(self._errors.items()))
            parts.append(f"the decoder reports an error from frame {packet} on: {line}")
        listed = len(self._stream.index_entries)
        if self._ended and listed > self._packets:
            parts.append(f"the file ends after {self._packets} of {listed} frames")
        return "; ".join(parts)


@contextlib.contextmanager
def _errors_logged() -> Iterator[list[str]]:
    """What FFmpeg logs as an error while inside, by this thread; a list that is filled at the end."""
    found: list[str] = []
    level, skipped = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # a line that the file before had too
    try:
        with av.logging.Capture() as logged:
            yield found
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skipped)
    found += [" ".join(text.split()) for _, _, text in logged]


class _Centered:
    """Frames of one pixel format and size, tagged with chroma in the center of its pixels.

    PyAV gives no access to the tag, and decoders differ: that of H.264 sets "left" where a file has none,
    that of VP9 sets nothing.
    """

    def __init__(self, frame: Any) -> None:
        self._graph: Any = av.filter.Graph()
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1)
        )
        self._graph.link_nodes(
            source, self._graph.add("setparams", "chroma_location=center"), self._graph.add("buffersink")
        ).configure()

    def __call__(self, frame: Any) -> Any:
        self._graph.vpush(frame)
        return self._graph.vpull()


class Converter:
    """Frames of one stream to uint8 RGB (height, width, 3), upright."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reformatter = VideoReformatter()
        self._centered: dict[str, _Centered] = {}  # by pixel format
        self._size: tuple[int, int] | None = None

    def check(self, frame: Any) -> None:
        """Raises UserError where a frame has another size than the first, or an unsupported matrix."""
        size = frame.width, frame.height
        self._size = self._size or size
        if size != self._size:
            first = f"{self._size[0]}×{self._size[1]}"
            raise unreadable(self._path, f"its size changes from {first} to {size[0]}×{size[1]}")
        matrix_of(self._path, frame)

    def __call__(self, frame: Any) -> NDArray[np.uint8]:
        """The frame's pixels.  Raises UserError as `check`, and as `upright`."""
        self.check(frame)
        source = _BT601 if _is_yuv(frame) and frame.colorspace not in MATRICES else None
        rgb: Any = self._reformatter.reformat(
            self._with_siting(frame), format="rgb24", src_colorspace=source, interpolation=_FLAGS, threads=1
        )
        return upright(self._path, rgb.to_ndarray(), frame)

    def _with_siting(self, frame: Any) -> Any:
        if not _is_subsampled(frame):
            return frame
        name = frame.format.name
        if name not in self._centered:
            self._centered[name] = _Centered(frame)
        return self._centered[name](frame)


def _is_subsampled(frame: Any) -> bool:
    """Whether several pixels share a chroma sample."""
    size = 64  # of any picture
    return _is_yuv(frame) and (frame.format.chroma_width(size), frame.format.chroma_height(size)) != (
        size,
        size,
    )


def _is_yuv(frame: Any) -> bool:
    return not frame.format.is_rgb and not frame.format.has_palette


def matrix_of(path: Path, frame: Any) -> str:
    """A frame's matrix by name: rgb, or one of `MATRICES`; `untagged` is read as BT.601.

    Raises UserError for a matrix that swscale cannot convert, as YCgCo.
    """
    if not _is_yuv(frame):
        return "rgb"
    if frame.colorspace in (0, _UNTAGGED, 3):  # 0 is RGB's, which YUV cannot have; 3 is reserved
        return "untagged"
    if frame.colorspace not in MATRICES:
        raise unreadable(path, f"its color matrix (number {frame.colorspace} of H.273) is not supported")
    return MATRICES[frame.colorspace]


def range_of(frame: Any) -> str:
    """A frame's range: limited, full, or untagged."""
    return "full" if not _is_yuv(frame) else RANGES.get(frame.color_range, "untagged")


def upright(path: Path, pixels: NDArray[np.uint8], frame: Any) -> NDArray[np.uint8]:
    """Pixels turned and mirrored as the file's display matrix says, as players and ffmpeg do.

    Raises UserError for a turn that is not by a multiple of 90 degrees.
    """
    data = frame.side_data.get(SideData.DISPLAYMATRIX)
    if data is None:
        return pixels
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].astype(float)
    small = 0.02 * max(map(abs, (a, b, c, d)))  # about one degree
    across, down = (a, d) if abs(b) <= small >= abs(c) else (c, b)
    if min(abs(across), abs(down)) <= small or (abs(a) > small and abs(b) > small):
        raise unreadable(path, f"its display matrix turns it by {frame.rotation} degrees")
    if (across, down) != (a, d):
        pixels = pixels.swapaxes(0, 1)
    return np.ascontiguousarray(pixels[:: 1 if down > 0 else -1, :: 1 if across > 0 else -1])


def rate(stream: Any, times: Sequence[int | None]) -> Fraction | None:
    """A stream's frames a second.

    The first of the container's two values by which every frame's time (in ticks of the
    stream) is right to one tick: a GIF counts in hundredths of a second, so that its average
    is 16.67 where 16 is meant.  Where none fits, the rate varies and the average is taken.
    """
    candidates = [r for r in (stream.average_rate, stream.guessed_rate) if r]
    known = [t for t in times if t is not None]
    if len(known) == len(times) > 1 and stream.time_base:
        for candidate in candidates:
            step = 1 / (candidate * stream.time_base)
            if all(abs(t - known[0] - i * step) <= 1 for i, t in enumerate(known)):
                return candidate
    return next(iter(candidates), None)
