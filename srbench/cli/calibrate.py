"""`srbench calibrate teacache --family shapes`: fit what an accelerator needs.

TeaCache's rescale polynomial predicts how much a model's output changes between two steps
from how much its time embedding does.  It belongs to one model; this fits it on tune
captions and tells R² on captions that the fit has not seen.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srbench import errors
from srbench.accelerators._teacache import projected, time_embedder, watched
from srbench.config import yaml_files
from srbench.config.experiment import Denoiser, Role
from srbench.config.registry import build
from srbench.errors import UserError
from srbench.families.base import Sampler, Text
from srbench.store.objects import write_text
from srbench.suites.base import text

DEGREE = 4
ENOUGH = 0.5  # R² on held-out prompts, below which a fit is told to be poor
PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Fit:
    """A polynomial, highest power first, and how well it does: R², None where it is not defined."""

    coefficients: tuple[float, ...]
    r2: float | None
    r2_held_out: float | None
    prompts: int
    held_out: int


class Recorder:
    """Watches one model: its time embedding and its output at every conditional call."""

    def __init__(self, model: Any) -> None:
        self.embeddings: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self._model = model
        self._handles = [
            time_embedder(model).register_forward_hook(self._embedding),
            model.register_forward_hook(self._output),
        ]

    def _embedding(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self.embeddings.append(watched(self._model, output))

    def _output(self, module: nn.Module, args: Any, output: Any) -> None:
        self.outputs.append(output[0].detach().float())

    def close(self) -> None:
        """Unhook the model."""
        for handle in self._handles:
            handle.remove()

    @torch.no_grad()
    def points(self, mode: str, calls_per_step: int) -> NDArray[np.float64]:
        """(steps − 1, 2): relative change of the embedding, and of the output."""
        e = self.embeddings[::calls_per_step]
        if mode == "ret_steps":
            e = [projected(self._model, x) for x in e]
        out = self.outputs[::calls_per_step]
        return np.array([(_relative(b, a), _relative(d, c)) for a, b, c, d in _pairs(e, out)])


def _pairs(e: Sequence[Tensor], out: Sequence[Tensor]) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    return [(e[i], e[i + 1], out[i], out[i + 1]) for i in range(len(e) - 1)]


def _relative(now: Tensor, before: Tensor) -> float:
    """mean|now − before| / mean|before|, TeaCache's distance."""
    return float((now - before).abs().mean() / before.abs().mean())


def fit(train: NDArray[np.float64], held_out: NDArray[np.float64], degree: int = DEGREE) -> Fit:
    """Least squares of the output's change on the embedding's.

    train, held_out: (prompts, steps − 1, 2).
    """
    x, y = train[..., 0].ravel(), train[..., 1].ravel()
    finite = bool(np.isfinite(x).all() and np.isfinite(y).all())
    p = np.polyfit(x, y, degree) if finite else np.full(degree + 1, np.nan)

    def r2(points: NDArray[np.float64]) -> float | None:
        a, b = points[..., 0].ravel(), points[..., 1].ravel()
        spread = float(np.square(b - b.mean()).sum())
        explained = 1 - float(np.square(b - np.polyval(p, a)).sum()) / spread if spread else math.nan
        return explained if math.isfinite(explained) else None

    return Fit(tuple(map(float, p)), r2(train), r2(held_out), len(train), len(held_out))


def record(
    sampler: Sampler,
    role: Role,
    prompts: Sequence[str],
    negative: str,
    modes: Sequence[str] = ("default", "ret_steps"),
) -> dict[str, NDArray]:
    """Points of every prompt (seed = its number) for each mode, the plain model run to the end."""
    denoiser = Denoiser(model=role)
    encoded = sampler.encode([*prompts, negative])
    points: dict[str, list] = {mode: [] for mode in modes}
    for seed, prompt in enumerate(prompts):
        recorder = Recorder(sampler.model(role))
        text = Text(encoded[prompt].embedding, encoded[negative].embedding)
        state = sampler.hand_over(sampler.start(seed, None), denoiser)
        try:
            while not state.done:
                state, _ = sampler.step(denoiser, state, text)
        finally:
            recorder.close()
        for mode, collected in points.items():
            collected.append(recorder.points(mode, sampler.calls_per_step(denoiser)))
        print(f"{role}: {seed + 1} of {len(prompts)} prompts", file=sys.stderr, flush=True)
    return {mode: np.stack(collected) for mode, collected in points.items()}


def teacache(family_name: str, suite: str, prompts: int, out: Path | None, overwrite: bool) -> int:
    """Fit both models in every mode; write JSON into the folder of the weights, or to `out`."""
    family = build("families", yaml_files.read("family", family_name), "family")
    errors.raise_all([*family.unfit(), *family.mistakes()])
    target = _target(family_name, family, out, overwrite)
    texts, half = _texts(suite, prompts), prompts // 2
    if half * (family.steps - 1) <= DEGREE:
        raise UserError(
            f"--prompts {prompts} at {family.steps} steps: {half * (family.steps - 1)} points to fit",
            f"more than {DEGREE} points, for a polynomial of degree {DEGREE}",
            "raise --prompts: half of them are fitted, half test the fit",
        )
    sampler = family.open()
    found: dict[str, dict[str, Any]] = {}
    for role in get_args(Role):
        points = record(sampler, role, texts, family.negative_prompt, family.TEACACHE_MODES)
        fits = {mode: fit(p[:half], p[half:]) for mode, p in points.items()}
        for mode, made in fits.items():
            _tell(f"{role} {mode}", made)
        found[role] = {mode: asdict(made) for mode, made in fits.items()}
    write_text(target, json.dumps(found, indent=1) + "\n", mode=0o644)
    print(f"wrote {target}")
    return 0


def _target(name: str, family: Any, out: Path | None, overwrite: bool) -> Path:
    """Where the fits are written.

    Raises UserError where nobody named a file, and where a file would be replaced that nobody offered.
    """
    folder = family.components.local
    target = out or (folder / "teacache.json" if folder else None)
    if target is None:
        raise UserError(f"family {name} with weights from a hub", "a file to write to", "--out FILE")
    if out is None and target.resolve().is_relative_to(PACKAGE):
        got = f"family {name}, whose weights are a part of srbench itself"
        raise UserError(got, "a file to write to: the installed package is left as it is", "--out FILE")
    if target.exists() and not overwrite:
        raise UserError(
            f"{target} exists", "a file that is not there yet", "--overwrite, or --out another file"
        )
    return target


def _texts(suite: str, prompts: int) -> list[str]:
    """What the model is given for so many prompts of a suite, spread over it.

    suite: a file of conf/suite, or a file of prompts.  Of a suite with a tune split, that split.
    """
    if prompts < 2:
        raise UserError(
            f"--prompts {prompts}", "2 or more: half are fitted, half test the fit", "--prompts 16"
        )
    if Path(suite).suffix:
        settings: dict[str, Any] = {"kind": "prompts", "prompts": suite}
    elif suite == "prompts":
        raise UserError("--suite prompts", "the file of prompts itself", "--suite FILE.txt")
    else:
        settings = dict(yaml_files.read("suite", suite))
    if "split" in settings:
        settings["split"] = "tune"
    if isinstance(settings.get("prompts"), int):
        settings["prompts"] = prompts
    made = build("suites", settings, "suite")
    errors.raise_all(getattr(made, "mistakes", list)())
    listed = made.list_prompts()
    if len(listed) < prompts:
        got = f"--prompts {prompts} of suite {suite}, which has {len(listed)}"
        raise UserError(got, f"at most {len(listed)}", f"--prompts {len(listed)}, or another suite")
    return [text(made, listed[i * len(listed) // prompts]) for i in range(prompts)]


def _tell(name: str, made: Fit) -> None:
    """Print how well a fit does, with a warning where it does not predict.  Raises UserError for no fit."""
    if not all(map(math.isfinite, made.coefficients)):
        raise UserError(f"{name}: the model's changes are not finite", "numbers to fit", "check the weights")
    shown = ["not defined" if r is None else f"{r:.4f}" for r in (made.r2, made.r2_held_out)]
    print(f"{name}: R² {shown[0]}, on held-out prompts {shown[1]}")
    if made.r2_held_out is None or made.r2_held_out < ENOUGH:
        print(
            f"warning: {name}: R² on held-out prompts is {shown[1]}, below {ENOUGH}: the polynomial does not "
            "predict how much the output changes. Use more prompts, or prompts like those of the benchmark.",
            file=sys.stderr,
        )


def main() -> int:
    """The command; returns its exit code."""
    parser = errors.Parser(prog="srbench calibrate", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    tea = commands.add_parser("teacache", help="TeaCache's rescale polynomials, for both models")
    tea.add_argument("--family", default="shapes", help="a file of conf/family")
    tea.add_argument(
        "--suite",
        default="shapes",
        help="a file of conf/suite, of which the tune split is used where there is one; or a file of prompts",
    )
    tea.add_argument("--prompts", type=int, default=16, help="how many; half to fit, half to test the fit")
    tea.add_argument("--out", type=Path, help="default: teacache.json in the folder of your own weights")
    tea.add_argument("--overwrite", action="store_true", help="replace the file where it exists")
    args = parser.parse_args()
    torch.set_num_threads(1)
    return teacache(args.family, args.suite, args.prompts, args.out, args.overwrite)


if __name__ == "__main__":
    errors.finish(main)
