"""Printed numbers with what their last digit leaves open, and the paper's methods by what they are."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from srbench.paper import published
from srbench.paper.claims.base import Finding, Untold
from srbench.paper.published import Method, Printed

NAMES = {key: s.name for key, s in published.settings().items()}
# where a number is looked for first; Table 1 quotes a leaderboard, and is only asked by name
TABLES = ("2", "5", "3", "4", "6", "7", "figure 5")
BASELINE = re.compile(r"large\+(pab|teacache)\([^)]*\)")  # as published: variants are marked behind that
SRD = re.compile(r"large until srdiffusion\(([\d.]+)\) > small")
FIXED = re.compile(r"large until fixed_step\((\d+)\) > small")
STEPS = 50  # of every method in the paper
SIMILARITY = ("lpips", "psnr", "ssim")  # as the paper's tables have them
ABOUT = {
    "lpips": "LPIPS",
    "psnr": "PSNR",
    "ssim": "SSIM",
    "total": "total",
    "quality": "quality",
    "semantic": "semantic score",
}
UNITS = {"psnr": "dB", "total": "points", "quality": "points", "semantic": "points"}


def methods(setting: str) -> dict[str, Method]:
    """The paper's methods of a setting by their key."""
    return {m.method: m for m in published.methods() if m.setting == setting}


def method(setting: str, key: str) -> Method:
    """One of them.  Raises Untold where the setting has none of that key."""
    try:
        return methods(setting)[key]
    except KeyError:
        raise Untold(f"the paper has no {key} for {NAMES[setting]}") from None


def label(setting: str, key: str) -> str:
    """As runs call such a method; the paper's names alone do not tell its settings."""
    known = method(setting, key)
    forms = (
        (SRD, "SRDiffusion δ={}"),
        (FIXED, "fixed switch at {}"),
        (re.compile(r"large\+teacache\(([\d.]+)\)"), "TeaCache {}"),
        (re.compile(r"large\+pab\((\d+) (\d+)-(\d+)\)"), "PAB {} [{}–{}]"),
    )
    found = ((form.fullmatch(known.path), text) for form, text in forms)
    return next((text.format(*match.groups()) for match, text in found if match), known.name)


def find(setting: str, key: str, column: str, tables: Sequence[str] = TABLES) -> Printed | None:
    """The number in the first of the tables that has it."""
    places = published.by_place()
    return next(
        (places[t, setting, key, column] for t in tables if (t, setting, key, column) in places), None
    )


def need(setting: str, key: str, column: str, tables: Sequence[str] = TABLES) -> Printed:
    """As find(), but raises Untold where there is none."""
    number = find(setting, key, column, tables)
    if number is None:
        raise Untold(f"the paper prints no {column.removeprefix('vbench/')} of {label(setting, key)} there")
    return number


def baselines(setting: str, tables: Sequence[str]) -> list[str]:
    """The PAB and TeaCache settings that those tables have a row of, in the paper's order."""
    return [m for m in _rows(setting, tuple(tables)) if BASELINE.fullmatch(method(setting, m).path)]


def adaptive(setting: str, tables: Sequence[str]) -> list[str]:
    """The plain SRDiffusion settings of those tables, by growing δ."""
    found = [(m, SRD.fullmatch(method(setting, m).path)) for m in _rows(setting, tuple(tables))]
    return [m for m, _ in sorted(((m, float(s[1])) for m, s in found if s), key=lambda pair: pair[1])]


@cache
def _rows(setting: str, tables: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(v.method for v in published.values() if v.setting == setting and v.table in tables)
    )


@cache
def half_digit(table: str, unit: str) -> float:
    """Half a unit of the last digit that a table prints in a unit; it may drop trailing zeros."""
    texts = [v.text for v in published.values() if v.table == table and v.unit == unit]
    return 0.5 * 10.0 ** -max(len(t.partition(".")[2]) for t in texts)


def rounded(compute: Callable[..., float], *numbers: Printed) -> tuple[float, float, float]:
    """(value, low, high) of a function of printed numbers, over what their last digits leave open.

    compute: monotone in each argument, so that its extremes are at the corners.
    """
    ends = [(v.value - h, v.value + h) for v in numbers for h in [half_digit(v.table, v.unit)]]
    corners = [compute(*corner) for corner in itertools.product(*ends)]
    # eleven digits: 0.1975 − 0.1965 is 0.001, not a little less
    return tuple(
        float(f"{x:.11g}") for x in (compute(*(v.value for v in numbers)), min(corners), max(corners))
    )  # type: ignore[return-value]


def finding(
    what: str, unit: str, compute: Callable[..., float], numbers: Sequence[Printed], **more: Any
) -> Finding:
    """A finding of printed numbers."""
    value, low, high = rounded(compute, *numbers)
    return Finding(
        what,
        unit,
        value,
        low,
        high,
        methods=tuple(dict.fromkeys(v.method for v in numbers)),
        columns=tuple(dict.fromkeys(v.column for v in numbers)),
        places=tuple(dict.fromkeys(_place(v.table) for v in numbers)),
        **more,
    )


def _place(table: str) -> str:
    return f"Table {table}" if table.isdigit() else table.capitalize()


def difference(a: Printed, b: Printed, what: str, unit: str, **more: Any) -> Finding:
    """How far the first is above the second, as printed."""
    return finding(what, unit, lambda x, y: x - y, (a, b), **more)
