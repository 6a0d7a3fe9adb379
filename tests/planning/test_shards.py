"""`shard=i/n`: processes that know nothing of each other make one run on one store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
import pytest
from omegaconf import OmegaConf
from rich.console import Console

from srbench import __main__ as door
from srbench.__main__ import job, settle
from srbench.cli import reports
from srbench.config import fingerprint, yaml_files
from srbench.errors import UserError
from srbench.planning.plan import Shard, Unit
from srbench.store.records import CellRecord, read_run, read_run_record, write_json

SMALL = [
    *("family.steps=4", "suite.prompts=3", "suite.seeds=1", "metric=[psnr]", "method=[large,fixed_step]"),
    *("method.fixed_step.step=2", "name=trial"),
]


def plain(results: Path, *overrides: str) -> dict[str, Any]:
    with hydra.initialize_config_dir(str(yaml_files.FOLDER), version_base=None):
        composed = hydra.compose("config", [*SMALL, f"results={results}", *overrides])
    return OmegaConf.to_container(composed, resolve=True)  # type: ignore[return-value]


def cells(results: Path) -> dict[str, CellRecord]:
    """All that is recorded of the one run that is there, by the cell's name."""
    (run,) = (results / "trial").iterdir()
    return {c.id: c for c in read_run(run)[1]}


def test_shards_add_up_to_the_run_and_say_what_is_missing_until_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "_to_report", {})
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    assert job(plain(parts, "shard=2/2"), []) == 0
    assert "4 cells of other shards are not" in " ".join(capsys.readouterr().out.split())
    assert not door._to_report
    assert {c.prompt_index for c in cells(parts).values()} == {1}
    (run,) = (parts / "trial").iterdir()
    reports.make(run, Console(width=200))
    told = capsys.readouterr().out
    assert "4 of 6 videos lack it" in told or "2 of 3 videos lack it" in told
    assert "2 of 6 cells done: 4 missing" in (run / "report.html").read_text("utf-8")
    assert job(plain(parts, "shard=1/2"), []) == 0
    assert list(door._to_report) == [run]
    assert job(plain(whole), []) == 0

    def bytes_(made: dict[str, CellRecord]) -> dict[str, tuple]:
        return {i: (c.video, c.trace, [s.per_frame for s in c.scores]) for i, c in made.items()}

    assert bytes_(cells(parts)) == bytes_(cells(whole)) and len(cells(whole)) == 6
    capsys.readouterr()
    # they may overlap, and one more finds all done
    for shard in ("1/1", "3/3", "2/2"):
        assert job(plain(parts, f"shard={shard}"), []) == 0
        assert "nothing was computed" in capsys.readouterr().out
    assert job(plain(parts, "shard=4/7"), []) == 0
    assert "nothing is left for it" in capsys.readouterr().out


def test_a_run_that_another_protocol_began_meanwhile_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "trial" / "r"

    def meanwhile(told: Any, store: Path) -> None:
        """What comes last before the run is begun."""
        about = door.record(settle(plain(tmp_path)), [], run, store, fingerprint.ground(1))
        write_json(run / "run.json", about.model_copy(update={"protocol": "other"}))

    monkeypatch.setattr(door, "refuse_full", meanwhile)
    monkeypatch.setattr(door, "execute", lambda *given: 0)
    with pytest.raises(UserError, match="run=r, begun under protocol other"):
        job(plain(tmp_path, "run=r"), [])
    assert read_run_record(run).protocol == "other"


def test_every_unit_is_in_one_shard_and_their_sizes_differ_by_one_at_most() -> None:
    units = [Unit(i // 5, f"prompt {i // 5}", i % 5) for i in range(48)]
    parts = [Shard(i, 7).part(units) for i in range(1, 8)]
    assert sorted((u for part in parts for u in part), key=units.index) == units
    assert {len(part) for part in parts} == {6, 7}


@pytest.mark.parametrize("shard", ["0/4", "5/4", "x", "1", "1/0", "-1/4", "1/4/2", "1 / 4", "''", "[1,4]"])
def test_what_is_no_shard_is_refused(shard: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"shard = (.|\n)*(i/n with 1 ≤ i ≤ n, as 3/16|a valid string)"):
        settle(plain(tmp_path, f"shard={shard}"))
