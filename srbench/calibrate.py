"""`python -m srbench.calibrate teacache --family shapes`: fit what an accelerator needs.

TeaCache's rescale polynomial predicts how much a model's output changes between two steps
from how much its time embedding does.  It belongs to one model; this fits it on tune
captions and tells R² on captions that the fit has not seen.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srbench import configs, errors
from srbench.accelerators._teacache import projected, time_embedder, watched
from srbench.errors import UserError
from srbench.experiment import Denoiser, Role
from srbench.families.base import Sampler, Text
from srbench.registry import build
from srbench.store.objects import write_text

DEGREE = 4


@dataclass(frozen=True)
class Fit:
    """A polynomial, highest power first, and how well it does."""

    coefficients: tuple[float, ...]
    r2: float
    r2_held_out: float
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
    p = np.polyfit(x, y, degree)

    def r2(points: NDArray[np.float64]) -> float:
        a, b = points[..., 0].ravel(), points[..., 1].ravel()
        return float(1 - np.square(b - np.polyval(p, a)).sum() / np.square(b - b.mean()).sum())

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


def teacache(family_name: str, suite: str, prompts: int, out: Path | None) -> int:
    """Fit both models in both modes; write JSON beside the weights, or to `out`."""
    family = build("families", configs.read("family", family_name), "family")
    errors.raise_all(family.mistakes())
    target = out or (family.components.local / "teacache.json" if family.components.local else None)
    if target is None:
        raise UserError(f"family {family_name} with weights from a hub", "a file to write to", "--out FILE")
    settings = configs.read("suite", suite) | {"prompts": prompts, "split": "tune"}
    texts = build("suites", settings, "suite").list_prompts()
    sampler = family.open()
    found: dict[str, dict[str, Any]] = {}
    for role in get_args(Role):
        points = record(sampler, role, texts, family.negative_prompt, family.TEACACHE_MODES)
        half = len(texts) // 2
        found[role] = {mode: asdict(fit(p[:half], p[half:])) for mode, p in points.items()}
        for mode, told in found[role].items():
            print(f"{role} {mode}: R² {told['r2']:.4f}, on held-out prompts {told['r2_held_out']:.4f}")
    write_text(target, json.dumps(found, indent=1) + "\n", mode=0o644)
    print(f"wrote {target}")
    return 0


def main() -> int:
    """The command; returns its exit code."""
    parser = errors.Parser(prog="python -m srbench.calibrate", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    tea = commands.add_parser("teacache", help="TeaCache's rescale polynomials, for both models")
    tea.add_argument("--family", default="shapes", help="a file of conf/family")
    tea.add_argument("--suite", default="shapes", help="a file of conf/suite, whose tune split is used")
    tea.add_argument("--prompts", type=int, default=16, help="half to fit, half to test the fit")
    tea.add_argument("--out", type=Path, help="default: teacache.json beside the weights")
    args = parser.parse_args()
    torch.set_num_threads(1)
    return teacache(args.family, args.suite, args.prompts, args.out)


if __name__ == "__main__":
    errors.finish(main)
