"""Jobs that end at the same time report on one run, and none gets in another's way."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from srbench.cli import reports
from srbench.errors import UserError


def quiet() -> Console:
    return Console(file=io.StringIO(), width=100)


def test_reports_of_one_run_are_made_one_after_the_other(
    make: Any, run_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_folder(make.run(), make.cells())
    at_work: list[int] = []
    most: list[int] = []
    read, link = reports.reading.read, reports.page.write

    def begin(run: Path) -> Any:
        at_work.append(1)
        most.append(len(at_work))
        time.sleep(0.1)
        return read(run)

    def end(*made: Any) -> Path:
        page = link(*made)
        at_work.pop()
        return page

    monkeypatch.setattr(reports.reading, "read", begin)
    monkeypatch.setattr(reports.page, "write", end)
    monkeypatch.setattr(reports.figures, "draw", lambda *made: [])
    with ThreadPoolExecutor(3) as pool:
        for made in [pool.submit(reports.make, folder, quiet()) for _ in range(3)]:
            made.result()
    assert most == [1, 1, 1]
    assert not [p for p in folder.rglob(".*") if p.name != ".lock"]


def test_what_is_no_run_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        reports.make(tmp_path / "none", quiet())
    assert not list(tmp_path.iterdir())
