"""What a metric is, and what may be compared."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator
from typing_extensions import TypeIs  # of typing from 3.13 on

from srbench.config import fingerprint
from srbench.config.experiment import digest
from srbench.config.registry import source
from srbench.errors import UserError
from srbench.store.records import MetricFacts
from srbench.video import Video, check


def _known_device(device: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ValueError("auto, cpu, cuda, or one GPU by its number as cuda:1")
    return device


Device = Annotated[str, AfterValidator(_known_device)]
"""Where a metric computes: auto is the first GPU where there is one."""


def gpu_of(device: str) -> str:
    """The GPU that a `Device` means on this machine, as torch names it; empty for the CPU.

    torch is asked only where the system shows a GPU.
    """
    if device != "auto":
        return "" if device == "cpu" else device
    if not fingerprint.may_have_gpu():
        return ""
    import torch

    return "cuda" if torch.cuda.is_available() else ""


CHUNK = 4
"""Frames that are compared at a time.

At 720p the prepared frames of SSIM and LPIPS take about 70 MiB each, so that a reference and
a dozen videos stay below 2 GiB however long they are.
"""


class Similarity(Protocol):
    """How near a video is to its reference; a pure function, nothing is kept.

    A metric that can may also be a `Prepares`, which `compare_many` makes use of, and may have
    a property `unavailable`: a sentence that says why it cannot be computed on this machine
    and which command mends that, or an empty string.
    """

    @property
    def facts(self) -> MetricFacts:
        """Name, unit, direction and bounds; they travel with every score."""
        ...

    def __call__(self, video: Video, reference: Video) -> NDArray[np.float64]:
        """One value a frame, shape (frames,), for uint8 RGB videos (frames, height, width, 3).

        Raises UserError where the two cannot be compared.
        """
        ...


@runtime_checkable
class Prepares(Protocol):
    """A similarity that does the reference's share of the work once for many videos."""

    def prepare(self, reference: Video) -> Any:
        """What videos are compared with: the reference's frames, filtered or turned into features."""
        ...

    def compare(self, video: Video, prepared: Any) -> NDArray[np.float64]:
        """As `__call__`, with the reference prepared; both are checked already."""
        ...


@runtime_checkable
class Through(Protocol):
    """A metric of what comes out of something that videos go through first, as an encoder."""

    @property
    def way(self) -> str:
        """Names what they go through; a video goes through once for all metrics of the same."""
        ...

    @property
    def inside(self) -> Similarity:
        """The similarity of what comes out, whose numbers are this one's."""
        ...

    def at_fps(self, fps: float) -> Metric:
        """The same of videos with so many frames a second, where that is not set."""
        ...

    def encoded(self, chunks: Iterator[Video]) -> bytes:
        """A video, from its chunks.  Raises UserError for one that cannot go through."""
        ...

    def decoded(self, encoded: bytes) -> Iterator[Video]:
        """What came out, CHUNK frames at a time."""
        ...


class Dimensions(Protocol):
    """What a video shows of its prompt: a suite's dimensions, each a score of its own."""

    def dimensions(self, prompt: str) -> Mapping[str, MetricFacts]:
        """Those that are defined for this prompt, by name.  Raises UserError where none can be."""
        ...

    def __call__(self, video: Video, prompt: str) -> Mapping[str, float]:
        """A number for each of `dimensions(prompt)`, for a uint8 RGB video (frames, height, width, 3)."""
        ...


@runtime_checkable
class Floor(Through, Dimensions, Protocol):
    """What going through alone does to a video.

    Its one dimension is the mean of the similarity inside, of what comes out to the video as it is.
    """


Metric = Similarity | Dimensions


def has_dimensions(metric: Metric) -> TypeIs[Dimensions]:
    """Whether a metric looks at a prompt, and not at a reference."""
    return hasattr(metric, "dimensions")


def unavailable(metric: Metric) -> str:
    """Why a metric cannot be computed here, with the command that mends it; empty if it can."""
    return str(getattr(metric, "unavailable", ""))


def facts(metric: Metric, prompt: str) -> Mapping[str, MetricFacts]:
    """What a metric gives for a video of this prompt, by name; with its code where that is not ours."""
    own = metric.dimensions(prompt) if has_dimensions(metric) else {metric.facts.name: metric.facts}
    named = code(metric)
    return {n: f.model_copy(update={"code": named}) for n, f in own.items()} if named else own


def code(metric: Metric) -> str:
    """What names the code and settings of a metric that is not srbench's; empty for one that is.

    Ours tell of both by name and version; who tries out a metric would have to think of it.
    """
    if getattr(metric, "kind", None) is None or source(type(metric)) is None:
        return ""
    return digest(metric)


def all_facts(metrics: Sequence[Metric], prompts: Sequence[str]) -> dict[str, MetricFacts]:
    """What metrics give for the videos of these prompts, by name, in the metrics' order.

    Raises UserError where a metric cannot score a prompt.
    """
    return {name: f for m in metrics for prompt in prompts for name, f in facts(m, prompt).items()}


def compare_chunks(metric: Prepares, video: Video, reference: Video) -> NDArray[np.float64]:
    """One value a frame, a few frames at a time.  Raises UserError: see check_pair."""
    check_pair(video, reference)
    starts = range(0, len(video), CHUNK)
    return np.concatenate(
        [metric.compare(video[i : i + CHUNK], metric.prepare(reference[i : i + CHUNK])) for i in starts]
    )


def compare_many(
    metrics: Sequence[Similarity], videos: Sequence[Iterator[Video]], reference: Iterator[Video]
) -> list[list[NDArray[np.float64]]]:
    """Per-frame values [video][metric] of many videos against one reference.

    All come as chunks of frames, as `video.chunks` reads them, so that nobody holds a whole
    video; what a metric prepares of the reference is computed once.

    Raises UserError where a video differs from the reference in frame count or size.
    """
    found: list[list[list[NDArray[np.float64]]]] = [[[] for _ in metrics] for _ in videos]
    done = 0
    for chunk in reference:
        prepared = [m.prepare(chunk) if isinstance(m, Prepares) else None for m in metrics]
        for own, frames in zip(found, videos, strict=True):
            part = next(frames, chunk[:0])
            if len(part) != len(chunk):
                own_rest, rest = sum(map(len, frames)), sum(map(len, reference))
                raise _frame_count(done + len(part) + own_rest, done + len(chunk) + rest)
            check_pair(part, chunk)
            for values, metric, ready in zip(own, metrics, prepared, strict=True):
                values.append(
                    metric.compare(part, ready) if isinstance(metric, Prepares) else metric(part, chunk)
                )
        done += len(chunk)
    for frames in videos:
        if rest := sum(map(len, frames)):
            raise _frame_count(done + rest, done)
    return [[np.concatenate(values) for values in own] for own in found]


def check_pair(video: Video, reference: Video) -> None:
    """Refuse two videos that differ in dtype, frame count or size; never cut one to fit.

    Cropping or resizing silently would change the number without changing its name.
    Raises UserError.
    """
    check(video, "the video")
    check(reference, "the reference")
    if len(video) != len(reference):
        raise _frame_count(len(video), len(reference))
    if video.shape != reference.shape:
        raise UserError(
            f"{_size(video)} pixels against {_size(reference)} of the reference",
            "the same width and height in both",
            "generate both at the same size; srbench neither crops nor resizes",
        )


def _frame_count(own: int, reference: int) -> UserError:
    return UserError(
        f"{own} frames against {reference} of the reference",
        "as many frames in both",
        "generate both with the same frames setting",
    )


def _size(video: Video) -> str:
    return f"{video.shape[2]}×{video.shape[1]}"
