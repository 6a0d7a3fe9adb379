"""`make bench`: PSNR, SSIM and LPIPS against the loops that others use, side by side in one run.

One reference against many candidates, and one pair.  The loops are written from the published
definitions: a video is compared frame by frame and channel by channel, SSIM with cv2's
two-dimensional filter in float64, LPIPS by the lpips package on one pair of frames at a time,
the reference anew for each candidate.  They get their frames as float32 on [0, 1] already;
ours begin with uint8.  Both have one thread and the same (random) AlexNet, and take turns with every
few frames of every video, so that whatever else the machine does hits both.  Values must agree, or
it fails.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from srbench.metrics import _lpips
from srbench.metrics.base import CHUNK, compare_many
from srbench.metrics.lpips import LPIPS
from srbench.metrics.psnr import PSNR
from srbench.metrics.ssim import SSIM
from srbench.video import Video
from tests.metrics.test_lpips import as_ours, package

METRICS = ("psnr", "ssim", "lpips")
TOLERANCE = {"psnr": 1e-5, "ssim": 1e-12, "lpips": 1e-5}
TARGETS = {"one against many": 3.0, "one pair, PSNR + SSIM": 1.5}
LINE = cv2.getGaussianKernel(11, 1.5)
WINDOW = LINE @ LINE.T
NET = package("alex")
Frame = NDArray[np.float32]  # (3, height, width) on [0, 1]


def psnr_loop(x: Frame, y: Frame) -> float:
    mse = np.mean((x - y) ** 2)
    return 100.0 if mse < 1e-10 else float(20 * np.log10(1 / np.sqrt(mse)))


def ssim_loop(x: Frame, y: Frame) -> float:
    return float(np.mean([_ssim_of_channel(a, b) for a, b in zip(x, y, strict=True)]))


def _ssim_of_channel(x: NDArray, y: NDArray) -> float:
    def mean(z: NDArray) -> NDArray:
        return cv2.filter2D(z, -1, WINDOW)[5:-5, 5:-5]

    x, y = x.astype(np.float64), y.astype(np.float64)
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    return float(
        ((2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx * mx + my * my + 1e-4) * (vx + vy + 9e-4))).mean()
    )


def lpips_loop(x: Frame, y: Frame) -> float:
    distance = NET(torch.from_numpy(x)[None] * 2 - 1, torch.from_numpy(y)[None] * 2 - 1)
    return distance.mean().detach().cpu().item()


LOOPS: dict[str, Callable[[Frame, Frame], float]] = {
    "psnr": psnr_loop,
    "ssim": ssim_loop,
    "lpips": lpips_loop,
}
OURS = {"psnr": PSNR(), "ssim": SSIM(), "lpips": LPIPS(device="cpu")}


class Stopwatch:
    """Seconds of processor time and of the clock, added up."""

    def __init__(self) -> None:
        self.processor = self.clock = 0.0

    def start(self) -> None:
        self._began = time.process_time(), time.perf_counter()

    def stop(self) -> None:
        self.processor += time.process_time() - self._began[0]
        self.clock += time.perf_counter() - self._began[1]


def frames(seed: int, count: int, height: int, width: int) -> Video:
    """A moving gradient with noise of its own: content doesn't matter to how long it takes."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    moving = np.stack([np.stack([x + 3 * t, y + 2 * t, x + y], -1) % 256 for t in range(count)])
    return np.clip(moving + rng.normal(0, 1 + seed, moving.shape), 0, 255).astype(np.uint8)


def unit(video: Video) -> NDArray[np.float32]:
    return np.ascontiguousarray(video.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255)


def race(
    names: tuple[str, ...], candidates: int, count: int, height: int, width: int
) -> tuple[Stopwatch, ...]:
    """Loops' and our time for these metrics; raises AssertionError where values differ."""
    loops, ours = Stopwatch(), Stopwatch()
    expected: list[list[list[float]]] = []

    def in_turn(video: Video, reference: NDArray[np.float32]) -> Iterator[Video]:
        """The video for us, once the loops have had their turn with it."""
        ours.stop()
        floats = unit(video)
        loops.start()
        expected.append([[LOOPS[m](x, y) for x, y in zip(floats, reference, strict=True)] for m in names])
        loops.stop()
        ours.start()
        yield video

    for start in range(0, count, CHUNK):
        n = min(CHUNK, count - start)
        reference = frames(0, n, height, width)
        videos = [in_turn(frames(1 + i, n, height, width), unit(reference)) for i in range(candidates)]
        expected.clear()
        ours.start()
        got = compare_many([OURS[m] for m in names], videos, iter([reference]))
        ours.stop()
        for one, another in zip(expected, got, strict=True):
            for name, a, b in zip(names, one, another, strict=True):
                np.testing.assert_allclose(b, a, rtol=0, atol=TOLERANCE[name], err_msg=name)
    return loops, ours


def peak_memory(candidates: int, chunks: int, height: int, width: int) -> float:
    """GiB of this process after one reference against many, as they come from a decoder."""

    def read(seed: int) -> Iterator[Video]:
        return (frames(seed, CHUNK, height, width) for _ in range(chunks))

    compare_many(list(OURS.values()), [read(1 + i) for i in range(candidates)], read(0))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--frames", type=int, default=81)
    parser.add_argument("--candidates", type=int, default=12)
    parser.add_argument("--size", default="832x480", help="width x height")
    parser.add_argument("--memory", action="store_true", help="the peak at 1280x720 instead")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    net = as_ours("alex", NET)
    NET.spatial = True
    _lpips.network = lambda name, device: net  # type: ignore[assignment]
    LPIPS.unavailable = ""  # type: ignore[assignment, method-assign]
    if args.memory:
        print(f"peak memory: {peak_memory(args.candidates, 3, 720, 1280):.2f} GiB, whatever the length")
        return
    width, height = map(int, args.size.split("x"))
    table = Table(title=f"{args.frames} frames of {width}×{height}, one thread; seconds of processor time")
    for column in ("what", "loops", "srbench", "ratio", "by the clock", "target"):
        table.add_column(column, justify="left" if column == "what" else "right")
    races = [(f"one pair, {m.upper()}", (m,), 1) for m in METRICS]
    races += [("one pair, PSNR + SSIM", ("psnr", "ssim"), 1), ("one pair, all three", METRICS, 1)]
    races += [("one against many", METRICS, args.candidates)]
    for what, names, candidates in races:
        loops, ours = race(names, candidates, args.frames, height, width)
        target = TARGETS.get(what)
        ratio = loops.processor / ours.processor
        table.add_row(
            what.replace("many", f"{candidates}, all three"),
            f"{loops.processor:.1f}",
            f"{ours.processor:.1f}",
            f"{ratio:.2f}×",
            f"{loops.clock / ours.clock:.2f}×",
            "" if target is None else f"{target:g}× {'met' if ratio >= target else 'missed'}",
        )
    Console(width=110).print(table)
    print("values agree: " + ", ".join(f"{m} within {t:g}" for m, t in TOLERANCE.items()))


if __name__ == "__main__":
    main()
