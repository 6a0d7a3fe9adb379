"""Everything below PAPER/: whole, escaped, linked, from one run or several, with no torch about."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from srbench.analysis import table
from srbench.cli.report import main
from srbench.paper import layouts, pages, published
from srbench.report import figures

HOSTILE = '</h2><script>alert(1)</script>" & | $x_2$ %'
NAMES = [f"table{n}.{end}" for n in range(1, 8) for end in ("csv", "md", "tex")]
NAMES += ["contradictions.csv", "contradictions.md", "index.html", "page.css", "theme.js"]
NAMES += ["claims.csv", "claims.md", "figures"]


def written(make: Any, folder: Path, **changes: Any) -> pages.Paper:
    """A run of another family with the paper's large and small model."""
    paths = {name: [{"denoiser": {"model": name}}] for name in ("large", "small")}
    methods = tuple(m.model_copy(update={"path": paths[m.name]}) for m in make.named(*paths))
    run, cells = make.run(methods=methods, resolved={"family": {"steps": 50}}, **changes), make.cells()
    made = pages.write(folder, [(run, cells, table.make(run, cells))])
    assert [b.found for b in made.tables[1].blocks] == [{"wan": 2}, {"wan": 2}]
    return made


def test_files_and_their_links(make: Any, tmp_path: Path) -> None:
    made = written(make, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(NAMES)
    page = made.page.read_text("utf-8")
    for link in re.findall(r'(?:href|src)="([^"#]+)"', page):
        assert (tmp_path / link).exists(), link
    for place, _, _ in made.summary:
        assert f'id="{place}"' in page
    assert "unsafe" not in page and not re.search(r"(src|href)=\"https?:", page)


def test_words_of_records_are_escaped(make: Any, tmp_path: Path) -> None:
    made = written(make, tmp_path, device=HOSTILE, warnings=(HOSTILE,))
    assert "<script>alert" not in made.page.read_text("utf-8")
    assert "<script>alert" not in (tmp_path / "table2.md").read_text("utf-8").replace("\\<", "")


def test_figures_of_the_paper_have_their_place(make: Any, tmp_path: Path) -> None:
    drawn = [
        figures.Figure("fig6", "Figure 6", "caption", size=(10, 10)),
        figures.Figure("x", "X", "", "no data"),
    ]
    run, cells = make.run(), make.cells()
    runs = [(run, cells, table.make(run, cells))]
    made = pages.write(tmp_path, runs)
    page = pages.html(pages.Paper(made.folder, made.tables, made.found, made.verdicts, drawn), runs)
    assert 'src="figures/fig6.png"' in page and "Not drawn: no data" in page


def test_every_width_of_a_terminal(make: Any, tmp_path: Path) -> None:
    made = written(make, tmp_path)
    for width in (60, 80, 300):
        console = Console(width=width, record=True, file=open("/dev/null", "w"))
        pages.show(made, console)
        text = console.export_text()
        assert all(len(line) <= width for line in text.splitlines())
        assert "84.05" in text and "96.79" in text and "contradiction: " in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_latex_compiles(make: Any, tmp_path: Path) -> None:
    written(make, tmp_path, device=HOSTILE)
    inputs = "".join(rf"\input{{table{n}}}" for n in range(1, 8))
    head = r"\documentclass[twocolumn]{article}\usepackage{booktabs}\begin{document}"
    text = rf"{head}{inputs}\end{{document}}"
    (tmp_path / "all.tex").write_text(text, "utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stdout.decode("latin-1")[-2000:]


def two_runs(make: Any, run_folder: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path]:
    made = run_folder(make.run(), make.cells())
    first, second = tmp_path / "one", tmp_path / "two"
    for folder in (first, second):
        folder.mkdir()
        for name in ("run.json", "cells"):
            (shutil.copytree if name == "cells" else shutil.copy)(made / name, folder / name)
    return first, second


def test_several_runs_and_where_it_goes(make: Any, run_folder: Callable[..., Path], tmp_path: Path) -> None:
    first, second = two_runs(make, run_folder, tmp_path)
    assert main([str(first), str(second)]) == 0
    assert (first / "paper" / "index.html").exists() and not (second / "paper").exists()
    for folder in (first, second):  # each has its own report, which leads to the one paper
        page = (folder / "report.html").read_text("utf-8")
        (link,) = set(re.findall(r'href="([^"#]*index\.html)"', page))
        assert (folder / link).resolve() == (first / "paper" / "index.html").resolve()
    assert main([str(first), "--into", str(tmp_path / "three")]) == 0
    assert (tmp_path / "three" / "table7.tex").exists()


def test_the_paper_is_printed_when_asked(
    make: Any, run_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(make.run(), make.cells())
    assert main([str(folder)]) == 0
    short = capsys.readouterr().out
    assert "Table 2" not in short and "beside the paper (" in short
    assert main([str(folder), "--paper"]) == 0
    assert "Table 7" in capsys.readouterr().out


def test_another_familys_numbers_are_none_of_the_papers(make: Any, tmp_path: Path) -> None:
    made = written(make, tmp_path)
    line = pages.pointer(made)
    assert re.search(
        r"\(none of 53 rows of its tables measured; \d+ filled with .* the family wan itself\)", line
    )
    assert not any(re.search(r"\b[1-9]\d* of \d+ methods measured", words) for _, _, words in made.summary)


def test_label_of_every_method() -> None:

    names = {layouts.label(m.name, m.path) for m in published.methods()}
    assert {"Wan 14B", "PAB C3, 8 [100–970]", "TeaCache C1, 0.14", "fixed switch, 10"} <= names
