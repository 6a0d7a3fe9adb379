"""The paper's printed numbers, read from results/published/; quoted, never ranked with measured ones.

A published method is found in a run by what it is, not by its name: signature() writes a resolved
path as one line with the settings that the paper names, and two equal lines are the same method.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parents[1]
# beside the package in a checkout, inside it once installed
FOLDER = next(
    (p for p in (_HERE / "published", _HERE.parent / "results" / "published") if p.is_dir()),
    _HERE / "published",
)
# of each kind, the settings that a paper names; the others are the protocol's or the code's
NAMED = {
    "srdiffusion": ("delta",),
    "fixed_step": ("step",),
    "boundary": ("boundary",),
    "teacache": ("threshold",),
    "pab": ("skip_range", "timestep_range"),
}


@dataclass(frozen=True)
class Printed:
    """One number of the paper.

    table: "1" to "7", or "figure 5".  setting: a family.  column: `vbench/total`, `vbench/color`
    and the like in %, `psnr` in dB, `ssim`, `lpips`, `latency` in s, `speedup` in ×.  value: as
    printed, and `text` with the digits as printed.  baseline: the method of the same table and
    setting that it is relative to, empty where to none.
    """

    table: str
    setting: str
    method: str
    column: str
    value: float
    text: str
    unit: str
    higher_is_better: bool
    baseline: str


@dataclass(frozen=True)
class Method:
    """A method of the paper: its name there, how many steps, its path as signature() writes it."""

    setting: str
    method: str
    name: str
    steps: int
    path: str
    settings: str


@dataclass(frozen=True)
class Setting:
    """What the numbers of a setting share.

    name: for readers.  large, small: how the checkpoints' names end or go on after the hub's owner.
    width, height: pixels.  seconds: a video's, rounded down.  prompts, seeds: of its VBench suite.
    device: a word of the device's name that latencies were taken on.
    """

    setting: str
    name: str
    large: str
    small: str
    width: int
    height: int
    seconds: int
    steps: int
    prompts: int
    seeds: int
    device: str


@cache
def settings() -> Mapping[str, Setting]:
    """All settings by their key, in the paper's order."""
    numbers = ("width", "height", "seconds", "steps", "prompts", "seeds")
    lines = _lines("settings")
    return {
        s["setting"]: Setting(**{k: int(v) if k in numbers else v for k, v in s.items()})  # type: ignore[arg-type]
        for s in lines
    }


@cache
def names() -> Mapping[tuple[str, str], str]:
    """(setting, method) → how the paper calls it."""
    return {(m.setting, m.method): m.name for m in methods()}


@cache
def values() -> tuple[Printed, ...]:
    """All numbers in the order of the paper's tables."""
    return tuple(
        Printed(
            line["table"],
            line["setting"],
            line["method"],
            line["column"],
            float(line["value"]),
            line["value"],
            line["unit"].replace("x", "×"),
            line["better"] == "higher",
            line["baseline"],
        )
        for line in _lines("values")
    )


@cache
def methods() -> tuple[Method, ...]:
    """All methods, by setting, in the order of the paper's rows."""
    return tuple(
        Method(m["setting"], m["method"], m["name"], int(m["steps"]), m["path"], m["settings"])
        for m in _lines("methods")
    )


def unstated(setting: str) -> list[tuple[str, str]]:
    """(what the paper does not say, what is taken here) of a setting, or of `all`, which holds for each."""
    return [(u["what"], u["assumed"]) for u in _lines("unstated") if u["setting"] == setting]


def value(table: str, setting: str, method: str, column: str) -> float:
    """One printed number; KeyError where the paper has none there."""
    return by_place()[table, setting, method, column].value


@cache
def by_place() -> Mapping[tuple[str, str, str, str], Printed]:
    """(table, setting, method, column) → the number printed there."""
    return {(v.table, v.setting, v.method, v.column): v for v in values()}


def signature(path: Sequence[Mapping[str, Any]]) -> str:
    """A resolved path (of a run's methods or a cell) as one line, with the settings that papers name.

    What variants add (PAB's state per branch, another FIX_STEP, a negative prompt) is marked with a word,
    so that a variant is not taken for the published method.

    >>> large, small = {"denoiser": {"model": "large"}}, {"denoiser": {"model": "small"}}
    >>> signature([large | {"until": {"kind": "srdiffusion", "delta": 0.01}}, small])
    'large until srdiffusion(0.01) > small'
    >>> tea = {"kind": "teacache", "threshold": 0.2}
    >>> signature([{"denoiser": {"model": "large", "accelerators": [tea]}}])
    'large+teacache(0.2)'
    """
    parts = []
    for i, segment in enumerate(path):
        text = _denoiser(segment.get("denoiser") or {})
        if i < len(path) - 1:
            until = segment.get("until") or {}
            text += f" until {_named(until)}{_variant(until)}"
        parts.append(text)
    return " > ".join(parts)


def _denoiser(denoiser: Mapping[str, Any]) -> str:
    text = str(denoiser.get("model"))
    if attention := denoiser.get("attention"):
        text += "@sage" if "sage" in attention else f"@{attention}"
    for accelerator in denoiser.get("accelerators") or ():
        text += f"+{_named(accelerator)}{_variant(accelerator)}"
    others = ("guidance_scale", "negative_prompt", "dtype", "batch_guidance", "disturb", "weights")
    return text + "".join(f" [{o}={denoiser[o]}]" for o in others if denoiser.get(o))


def _named(plugin: Mapping[str, Any]) -> str:
    kind = str(plugin.get("kind"))
    shown = [_short(plugin.get(name)) for name in NAMED.get(kind, sorted(set(plugin) - {"kind"}))]
    return f"{kind}({' '.join(shown)})"


def _variant(plugin: Mapping[str, Any]) -> str:
    stock: dict[str, Any] = {"hooks": "self", "state": "shared", "mode": "default"}
    stock |= {"min_steps": 5, "max_steps": None, "sign": "diminishing"}
    other = [str(plugin[k]) for k, v in stock.items() if plugin.get(k, v) != v]
    return f" [{' '.join(other)}]" if other else ""


def _short(setting: Any) -> str:
    if isinstance(setting, (list, tuple)):
        return "-".join(map(_short, setting))
    return f"{setting:g}" if isinstance(setting, (int, float)) else str(setting)


def _lines(name: str) -> list[dict[str, str]]:
    with open(FOLDER / f"{name}.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
