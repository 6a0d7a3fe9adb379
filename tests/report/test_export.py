"""Files that others read: tidy, escaped, whole."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess

import pandas as pd
import pytest

from srbench.analysis import table
from srbench.report import export
from srbench.store.records import Score, Software

HOSTILE = r"a|b <img src=x> $x^2_i$ & 50% #{\input{x}} ~ `c` *d* [e](f) ü 中 \ δ"


def failed(make):
    """Three methods, one video failed."""
    cells = make.cells(4)
    cells[1] = cells[1].model_copy(update={"outcome": "failed", "reason": "broke", "scores": ()})
    return make.run(), cells


def test_csv_is_tidy(make):
    run, cells = failed(make)
    tables = table.make(run, cells)
    lines = list(csv.DictReader(io.StringIO(export.to_csv(run, tables.main))))
    assert tuple(lines[0]) == tuple(export.CSV_FIELDS)
    assert len(lines) == len(tables.main) * len(tables.main[0].values)
    line = next(x for x in lines if (x["method"], x["column"]) == ("small", "psnr"))
    value = tables.main[1]["psnr"]
    assert (float(line["value"]), float(line["low"])) == (value.value, value.low)
    assert (line["outcome"], line["n"], line["unit"], line["best"]) == ("failed", "7", "dB", "false")
    assert line["protocol"] == "p" * 64
    assert {x["unit"] for x in lines if x["column"] == "latency"} == {"s est."}


def test_parquet_has_every_value_with_its_provenance(make, tmp_path):
    run, cells = failed(make)
    run = run.model_copy(update={"warnings": ("one", "two")})
    export.to_parquet(tmp_path / "t.parquet", run, cells, table.make(run, cells))
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]
    read = pd.read_parquet(tmp_path / "t.parquet")
    assert list(read.columns) == export.PARQUET_FIELDS
    methods = read[read.level == "method"].set_index(["method", "column"])
    psnr = table.rows(run, cells)[2]["psnr"]
    assert methods.loc[("srd_0.01", "psnr"), "value"] == psnr.value
    videos = read[(read.level == "video") & (read.column == "psnr") & (read.method == "srd_0.01")]
    assert videos.value.mean() == pytest.approx(psnr.value)
    assert set(read.protocol) == {"p" * 64} and set(read.device) == {"NVIDIA H100"}
    assert set(read.warnings) == {"one; two"}
    gone = read[read.outcome == "failed"]
    assert "broke" in set(gone[gone.level == "video"].reason)


def test_parquet_has_how_many_frames_of_a_video_sit_at_psnrs_cap(make, tmp_path):
    psnr = make.psnr.model_copy(update={"upper_bound": 100.0})
    scores = (make.scored(psnr, 65.0, (100.0, 30.0)),)
    cells = [make.cell("large", 0, 0), make.cell("small", 0, 0, scores=scores)]
    export.to_parquet(tmp_path / "t.parquet", make.run(), cells, table.make(make.run(), cells))
    read = pd.read_parquet(tmp_path / "t.parquet")
    videos = read[(read.level == "video") & (read.method == "small")].set_index("column").value
    assert (videos["psnr/frames_at_cap"], videos["psnr/without_capped"]) == (1, 30)


def test_hostile_words_survive_parquet(make, tmp_path):
    words = 'a "quoted", word\nand a line, ' + HOSTILE
    cells = [c.model_copy(update={"prompt": words}) for c in make.cells(1)]
    export.to_parquet(tmp_path / "t.parquet", make.run(), cells, table.make(make.run(), cells))
    assert set(pd.read_parquet(tmp_path / "t.parquet").prompt.dropna()) == {words}


def test_markdown_is_a_table_that_no_word_breaks(make):
    run, cells = failed(make)
    cells = [c.model_copy(update={"label": HOSTILE + c.method}) for c in cells]
    text = export.to_markdown(run, table.rows(run, cells))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 3
    bars = [line.replace(r"\|", "").count("|") for line in lines]
    assert len(set(bars)) == 1
    assert "<img" not in text.replace(r"\<img", "") and r"\[e\](f)" in text
    assert "**" in text and "<sup>1</sup> 1 of 8 videos failed: broke" in text


def test_markdown_warns_first(make):
    run = make.run(warnings=("random weights: plumbing only",))
    assert export.to_markdown(run, table.rows(run, make.cells())).startswith(
        "**Warning: random weights: plumbing only**\n\n| method"
    )


@pytest.mark.parametrize(
    ("text", "tex"),
    [
        ("σ=0.3, τ ≤ √2 ≠ Ω", r"$\sigma$=0.3, $\tau$ $\leq$ $\surd$2 $\neq$ $\Omega$"),
        ("“a” ‘b’ 5 µm 3°", "``a'' `b' 5 $\\mu$m 3$^\\circ$"),
        ("e\u0301tude, Ångström, Łódź", "étude, Ångström, Łódź"),
        ("基线 ½ ✓", "基线 ½ ✓"),
        ("a\tb\u2028c\x07d\udcff", r"a b c\textbackslash{}x07d\textbackslash{}udcff"),
    ],
)
def test_latex_loses_no_letter(text, tex):
    assert export.latex(text) == tex


def test_letters_that_pdflatex_does_not_know_are_named_in_a_comment(make):
    run, cells = make.run(), make.cells()
    plain = [c.model_copy(update={"label": f"é σ {c.method}"}) for c in cells]
    assert "xelatex" not in export.to_latex(run, table.rows(run, plain))
    named = [c.model_copy(update={"label": f"基线 {c.method}"}) for c in cells]
    tex = export.to_latex(run, table.rows(run, named))
    assert "% needs xelatex or lualatex, and a font that has these letters: 基 线\n" in tex
    assert "基线 large" in tex and "?" not in tex


def test_no_two_rows_of_latex_have_one_name(make):
    run = make.run()
    cells = [c.model_copy(update={"label": "same  label"}) for c in make.cells()]
    rows = table.rows(run, cells)
    labels = [export.latex(label) for label in export.row_labels(rows)]
    assert len(set(labels)) == len(rows) > 1
    assert labels[0] == "same label (large)"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(make, tmp_path):
    run, cells = failed(make)
    hostile = HOSTILE.replace("中", "σ ≤ √2 “é”")  # pdflatex has no such letter
    run = run.model_copy(update={"warnings": (hostile,), "experiment": hostile})
    sharp = make.dimension("odd_suite/sharp#ness", "quality")
    cells = [
        c.model_copy(
            update={"label": hostile + c.method, "scores": (*c.scores, Score(metric=sharp, value=0.5))}
        )
        for c in cells
    ]
    tables = table.make(run, cells)
    names = []
    for name, rows in (("table", tables.main), ("dimensions", tables.dimensions)):
        (tmp_path / f"{name}.tex").write_text(export.to_latex(run, rows), "utf-8")
        names.append(rf"\input{{{name}}}")
    document = (
        rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{''.join(names)}\end{{document}}"
    )
    (tmp_path / "all.tex").write_text(document, "utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stdout.decode("latin-1")[-2000:]


def test_files_of_a_run(make, tmp_path):
    run, cells = make.run(), make.cells()
    (tmp_path / "dimensions.csv").write_text("of an earlier report")
    export.write(tmp_path, run, cells, table.make(run, cells))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "table.csv",
        "table.md",
        "table.parquet",
        "table.tex",
    ]


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        ((0, 2**63 - 1), [0, 2**63 - 1]),
        ((0, 2**64 - 1), [0, 2**64 - 1]),
        ((0, 2**70), ["0", str(2**70)]),
        ((-1, 2**63), ["-1", str(2**63)]),
    ],
)
def test_every_seed_is_whole_in_parquet(make, tmp_path, seeds, expected):
    """ComfyUI's seeds go up to 2^64 − 1; a double would round those above 2^53."""
    cells = [c.model_copy(update={"seed": seeds[c.seed]}) for c in make.cells(1)]
    run = make.run(seeds=seeds)
    export.to_parquet(tmp_path / "t.parquet", run, cells, table.make(run, cells))
    read = pd.read_parquet(tmp_path / "t.parquet", dtype_backend="numpy_nullable")
    assert set(read.seed.dropna()) == set(expected)


def test_a_video_has_the_commit_that_made_it(make, tmp_path):
    """Of a run that another commit went on with."""
    later = Software(commit="b" * 40, dirty=False, packages={"torch": "2.10"})
    cells = [c.model_copy(update={"made": later}) if c.method == "small" else c for c in make.cells(2)]
    run = make.run(commit="a" * 40, packages={"torch": "2.9"})
    export.to_parquet(tmp_path / "t.parquet", run, cells, table.make(run, cells))
    read = pd.read_parquet(tmp_path / "t.parquet")
    videos, methods = (read[read.level == level] for level in ("video", "method"))
    found = {
        (m, c, d, p)
        for m, c, d, p in zip(videos.method, videos.commit, videos.dirty, videos.packages, strict=True)
    }
    assert found == {
        ("small", "b" * 40, False, "torch 2.10"),
        ("large", "a" * 40, True, "torch 2.9"),
        ("srd_0.01", "a" * 40, True, "torch 2.9"),
    }
    both = f"{'a' * 40}, {'b' * 40}"
    assert set(methods.packages) == {"torch 2.9 and 2.10"} and set(methods.commit) == {both}


def test_parts_of_a_large_file_have_one_type_each(make, tmp_path, monkeypatch):
    """Also where a part has no number at all in a column."""
    monkeypatch.setattr(export, "CHUNK", 2)
    cells = [c.model_copy(update={"scores": (), "stages": ()}) for c in make.cells(3)[:6]] + make.cells(3)[6:]
    export.to_parquet(tmp_path / "t.parquet", make.run(), cells, table.make(make.run(), cells))
    assert {"method", "video"} == set(pd.read_parquet(tmp_path / "t.parquet").level)
