"""Records survive the disk unchanged; anything else under their name is refused in words."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srbench.errors import UserError
from srbench.store.records import (
    INDEX,
    VERSION,
    CellRecord,
    MethodRecord,
    MetricFacts,
    RunRecord,
    Score,
    Stage,
    cell_path,
    link_name,
    linked,
    parted,
    read_cell,
    read_run,
    scan,
    write_cell,
    write_json,
)
from srbench.trace import SIGNALS, Step, Trace

PSNR = MetricFacts(name="psnr", version=1, unit="dB", higher_is_better=True, lower_bound=0)
SWITCHED = Trace(
    (
        Step(0, 1000.0, 937.5, 1.0, "large#1", "large", None, 2, 0),
        Step(1, 937.5, 500.1, 0.9375, "large#1", "large", dict.fromkeys(SIGNALS, 0.1 + 0.2), 2, 0),
        Step(2, 500.1, 0.0, 0.5001, "small#2", "small", dict.fromkeys(SIGNALS, 1e-17), 1, 1, 30, 10),
    )
)


def cell(**changes: Any) -> CellRecord:
    fields = dict(
        id="c" * 64,
        family="shapes",
        method="srd",
        label="SRDiffusion δ=0.01",
        method_id="abc",
        path=[{"denoiser": {"model": "large"}, "until": {"kind": "srdiffusion", "delta": 0.01}}],
        prompt="a red circle, 熊 “quoted”\n",
        prompt_index=3,
        seed=2**40,
        outcome="done",
        video="d" * 64,
        protocol="p",
        trace=SWITCHED,
        step_seconds=(0.1, 1 / 3, 2e-9),
        stages=(Stage(name="decode", seconds=0.3),),
        scores=(Score(metric=PSNR, value=23.4567890123456, per_frame=(20.0, 1 / 3)),),
        shared_steps=2,
    )
    return CellRecord(**(fields | changes))


def run(**changes: Any) -> RunRecord:
    fields = dict(
        experiment="e",
        run="r",
        family="shapes",
        asked=["method=[large]"],
        resolved={"family": {"steps": 50}, "methods": []},
        store="../../store",
        methods=(MethodRecord(name="large", label="large", id="l", is_reference=True, path=[], steps=None),),
        prompts=("a",),
        seeds=(0, 1),
        protocol="p",
        commit=None,
        dirty=None,
        packages={"torch": "2.9"},
        device="CPU",
        threads=1,
        started="2025-01-01T00:00:00+00:00",
    )
    return RunRecord(**(fields | changes))


def test_a_cell_comes_back_equal_to_the_last_bit(tmp_path: Path) -> None:
    write_json(tmp_path / "cells" / "c.json", cell())
    back = read_cell(tmp_path / "cells" / "c.json")
    assert back == cell()
    assert isinstance(back.trace, Trace) and back.trace.switches == (2,)
    assert [p.name for p in (tmp_path / "cells").iterdir()] == ["c.json"]


def test_a_failed_cell_keeps_its_reason(tmp_path: Path) -> None:
    failed = cell(outcome="failed", reason="out of memory at step 3", video=None, trace=None, scores=())
    write_json(tmp_path / "c.json", failed)
    assert read_cell(tmp_path / "c.json") == failed


def test_the_file_is_plain_json_with_its_version(tmp_path: Path) -> None:
    write_json(tmp_path / "c.json", cell())
    plain = json.loads((tmp_path / "c.json").read_text("utf-8"))
    assert plain["version"] == VERSION
    assert plain["trace"]["steps"][1]["change"]["x0"] == 0.1 + 0.2


def test_a_run_is_read_with_its_cells_in_order(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", run())
    for i, (prompt, seed, method) in enumerate([(1, 0, "a"), (0, 1, "b"), (0, 1, "a"), (0, 0, "b")]):
        write_json(tmp_path / "cells" / f"{i}.json", cell(prompt_index=prompt, seed=seed, method=method))
    record, cells = read_run(tmp_path)
    assert record == run()
    assert [(c.prompt_index, c.seed, c.method) for c in cells] == [
        (0, 0, "b"),
        (0, 1, "a"),
        (0, 1, "b"),
        (1, 0, "a"),
    ]


def test_a_record_still_being_written_is_none_yet(tmp_path: Path) -> None:
    """A writer killed in the middle leaves it for ever."""
    write_json(tmp_path / "run.json", run())
    write_json(tmp_path / "cells" / "0.json", cell())
    (tmp_path / "cells" / ".0123456789abcdef.json").write_text('{"versi')
    assert read_run(tmp_path) == (run(), [cell()])


def test_a_run_without_cells_yet_is_a_run(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", run())
    assert read_run(tmp_path) == (run(), [])


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run\.json\n(.|\n)*results/<experiment>/<run>"):
        read_run(tmp_path)


def edited(path: Path, **changes: Any) -> Path:
    write_json(path, cell())
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes))
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"colour": "red"},
        {"seed": "first"},
        {"outcome": "perhaps"},
        {"prompt": None},
        {"scores": [{"value": 3}]},
    ],
    ids=lambda c: next(iter(c)),
)
def test_a_record_with_unknown_or_wrong_fields_is_refused(tmp_path: Path, changes: dict) -> None:
    with pytest.raises(UserError, match=r"c\.json") as told:
        read_cell(edited(tmp_path / "c.json", **changes))
    assert told.value.expected == f"a record of version {VERSION}"


def test_a_record_cut_short_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "c.json", cell())
    (tmp_path / "c.json").write_bytes((tmp_path / "c.json").read_bytes()[:100])
    with pytest.raises(UserError, match=r"c\.json"):
        read_cell(tmp_path / "c.json")


def test_a_record_of_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"a record of version {VERSION}"):
        read_cell(edited(tmp_path / "c.json", version=VERSION + 1))


def test_numbers_that_are_none_can_be_read_again(tmp_path: Path) -> None:
    """A latent of zeros has D = 0/0; one such cell must not make the whole run unreadable."""
    odd = Trace((Step(0, 1.0, 0.0, 1.0, "l", "large", dict.fromkeys(SIGNALS, math.nan), 2, 0),))
    write_json(tmp_path / "c.json", cell(trace=odd, step_seconds=(math.inf,)))
    back = read_cell(tmp_path / "c.json")
    assert back.trace and math.isnan(back.trace.change("x0")[0]) and back.step_seconds == (math.inf,)


def test_two_methods_of_one_name_have_links_of_their_own(tmp_path: Path) -> None:
    one, other = (cell(method_id=f"6a17{rest}", video=rest[-1] * 64) for rest in ("c80b11d1", "ffee22d2"))
    assert linked(tmp_path, one) != linked(tmp_path, other)
    assert linked(tmp_path, one) == tmp_path / "videos" / link_name(3, 2**40, "srd", one.method_id)


def test_a_link_of_an_older_run_is_taken_where_it_leads_to_the_very_video(tmp_path: Path) -> None:
    one, other = (cell(method_id=f"6a17{rest}", video=rest[-1] * 64) for rest in ("c80b11d1", "ffee22d2"))
    old = linked(tmp_path, one).with_name("srd-6a17.webm")
    old.parent.mkdir(parents=True)
    old.symlink_to(tmp_path / f"{one.video}.webm")
    assert linked(tmp_path, one) == old
    assert linked(tmp_path, other) != old, "it shows another δ's video"
    new = old.with_name("srd-6a17c80b.webm")
    new.write_text("made again")
    assert linked(tmp_path, one) == new


def _without_defaults(cell: CellRecord) -> str:
    return cell.model_dump_json(indent=1, exclude_defaults=True)


@pytest.mark.parametrize(
    "written",
    [
        lambda cell: cell.model_dump_json(indent=1),
        lambda cell: cell.model_dump_json(),  # in another way than ours
        _without_defaults,  # as of a version that had fewer fields
    ],
)
def test_a_scan_finds_the_same_with_the_index_and_without(tmp_path: Path, written: Any) -> None:
    """Whoever wrote the record: the index's line says what the whole record does."""
    skipped = Score(metric=PSNR, value=None, outcome="skipped", reason="no reference")
    cells = [cell(), cell(id="b" * 64, outcome="failed", trace=None, scores=(skipped,), video_bytes=7)]
    for one in cells:
        write_cell(tmp_path, one)
    indexed = scan(tmp_path)
    assert {b.outcome for b in indexed.values()} == {"done", "failed"}
    (tmp_path / INDEX).unlink()
    for one in cells:
        cell_path(tmp_path, one.id).write_text(written(one), encoding="utf-8")
    assert scan(tmp_path) == indexed  # from records
    assert scan(tmp_path) == indexed  # from the index that this wrote


WORDS = st.text(max_size=20) | st.sampled_from(['\n "trace": {', "\n }", '\n "step_seconds"', "}"])


@given(prompt=WORDS, reason=WORDS, steps=st.none() | st.integers(0, 3))
def test_a_record_is_parted_into_its_trace_and_the_rest(prompt: str, reason: str, steps: int | None) -> None:
    """However it was written, and whatever words stand in it."""
    (step,) = cell().trace.steps[:1]
    trace = None if steps is None else Trace((step,) * steps)
    path = [{"until": {"kind": reason, "trace": {}}}]
    made = cell(prompt=prompt, reason=reason, label=prompt, trace=trace, path=path)
    for text in (made.model_dump_json(indent=1), made.model_dump_json(), _without_defaults(made)):
        cut, rest = parted(text.encode())
        whole, left = json.loads(text), json.loads(rest)
        if cut:
            assert left["trace"] is None and json.loads(cut) == whole["trace"]
        assert {**left, "trace": 0} == {**whole, "trace": 0}
        assert cut or left.get("trace") == whole.get("trace")


def test_a_scan_without_index_refuses_a_broken_record(tmp_path: Path) -> None:
    write_cell(tmp_path, cell())
    path = cell_path(tmp_path, cell().id)
    path.write_text(path.read_text(encoding="utf-8").replace('"outcome"', '"outcame"', 1), encoding="utf-8")
    with pytest.raises(UserError, match=path.name):
        scan(tmp_path)
