"""Figures are drawn from records, and one that lacks its data says so."""

from __future__ import annotations

import dataclasses

import pytest

from srbench.analysis import roles, table
from srbench.report import figures
from srbench.store.records import MethodRecord

RULE = {"kind": "srdiffusion", "delta": 0.01, "min_steps": 5, "signal": "model_output"}
PATHS = {
    "large": [{"denoiser": {"model": "large"}, "until": {"kind": "always"}}],
    "small": [{"denoiser": {"model": "small"}, "until": {"kind": "always"}}],
    "srd_0.01": [{"denoiser": {"model": "large"}, "until": RULE}, {"denoiser": {"model": "small"}}],
    "fixed": [
        {"denoiser": {"model": "large"}, "until": {"kind": "fixed_step", "step": 10}},
        {"denoiser": {"model": "small"}},
    ],
}


def records(make, label="{name}"):
    """Four methods over three prompts, the reference's trace with D."""
    cells = make.cells()
    cells += [
        make.cell("fixed", p, s, switch=10, scores=make.scores(22.0 + p)) for p in range(3) for s in (0, 1)
    ]
    cells = [
        c.model_copy(
            update={
                "path": PATHS[c.method],
                "label": label.format(name=c.method),
                "trace": with_change(c.trace),
            }
        )
        for c in cells
    ]
    named = tuple(
        MethodRecord(
            name=n,
            label=label.format(name=n),
            id=f"id-{n}",
            is_reference=n == "large",
            path=p,
            steps=None,
        )
        for n, p in PATHS.items()
    )
    return make.run(methods=named), cells


def with_change(trace):
    steps = tuple(
        dataclasses.replace(s, change={"model_output": 0.5 / (s.index + 1)} if s.index else None)
        for s in trace.steps
    )
    return dataclasses.replace(trace, steps=steps)


def test_all_are_drawn_as_png_and_pdf_with_text(make, tmp_path):
    run, cells = records(make)
    drawn = figures.draw(tmp_path, run, cells, table.rows(run, cells))
    assert [f.missing for f in drawn] == [""] * len(drawn)
    assert {f.name for f in drawn} >= {
        "speedup_psnr",
        "change",
        "distribution",
        "switch_steps",
        "latency",
    }
    for figure in drawn:
        assert (tmp_path / f"{figure.name}.png").read_bytes().startswith(b"\x89PNG")
        pdf = (tmp_path / f"{figure.name}.pdf").read_bytes()
        assert b"/CIDFontType2" in pdf, "letters must be letters, not outlines"
        assert figure.size[0] == 990, "3.3 in at 300 dpi"
    assert "fewer steps is not in it" in drawn[0].caption


def test_same_records_give_same_bytes(make, tmp_path):
    run, cells = records(make)
    rows = table.rows(run, cells)
    for folder in ("a", "b"):
        figures.draw(tmp_path / folder, run, cells, rows)
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert len(files) == 14
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_what_lacks_data_says_so_and_leaves_no_old_file(make, tmp_path):
    run = make.run(methods=())
    cells = [make.cell("large", 0, 0, step_seconds=(), stages=())]
    (tmp_path / "latency.png").write_bytes(b"of an earlier report")
    drawn = figures.draw(tmp_path, run, cells, table.rows(run, cells))
    assert all(f.missing for f in drawn)
    assert list(tmp_path.iterdir()) == []


def test_labels_are_no_formulas(make, tmp_path):
    run, cells = records(make, "{name} $\\frac{{$ _^ <b>")
    drawn = figures.draw(tmp_path, run, cells, table.rows(run, cells))
    assert not any(f.missing for f in drawn)


@pytest.mark.parametrize(
    ("name", "steps", "role"),
    [
        ("small", None, "small"),
        ("large", 20, "fewer"),
        ("srd_0.01", None, "adaptive"),
        ("fixed", None, "fixed"),
    ],
)
def test_roles_come_from_paths(name, steps, role):
    assert roles.role(False, PATHS[name], steps) == role


def test_letters_keep_off_their_neighbours():
    at = [(0.0, 0.0), (6.0, 0.0), (12.0, 0.0)]
    letters = [(x + dx, y + dy) for (x, y), (dx, dy) in zip(at, figures.place(at), strict=True)]
    spots = at + letters
    assert min(abs(a[0] - b[0]) + abs(a[1] - b[1]) for i, a in enumerate(spots) for b in spots[:i]) >= 5
