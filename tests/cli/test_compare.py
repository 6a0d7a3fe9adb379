"""Run against run: what changed, by how much, and when the gate closes."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from srbench.analysis import statistics, table
from srbench.cli import compare as command
from srbench.store.records import Score, Software, write_json

PROMPTS, SEEDS = 12, 2


def records(make, worse=0.0, noise=0.05, prompts=range(PROMPTS), **changes):
    """Reference, small and SRDiffusion; `worse` dB less for SRDiffusion, and noise that pairing takes out."""
    rng = np.random.default_rng(int(100 * abs(worse)) + 7)
    sharp, color = make.dimension("shapes/sharp", "quality"), make.dimension("shapes/color", "semantic")
    cells = []
    for cell in make.cells(PROMPTS, SEEDS):
        if cell.prompt_index not in prompts:
            continue
        scores = [
            s.model_copy(
                update={"value": s.value - worse * (cell.method == "srd_0.01") + noise * rng.normal()}
            )
            if s.metric.name == "psnr"
            else s
            for s in cell.scores
        ]
        level = 0.7 + 0.02 * cell.prompt_index - 0.01 * worse * (cell.method == "srd_0.01")
        scores += [Score(metric=d, value=level + 0.001 * rng.normal()) for d in (sharp, color)]
        number = list(prompts).index(cell.prompt_index)
        cells.append(cell.model_copy(update={"scores": tuple(scores), "prompt_index": number}))
    fields = {"prompts": tuple(f"prompt {p}" for p in prompts), "seeds": tuple(range(SEEDS))}
    return make.run(**(fields | changes)), cells


@pytest.fixture
def folders(tmp_path):
    """Writes runs side by side: returns their folders."""
    made = []

    def write(*runs):
        for run, cells in runs:
            folder = tmp_path / f"run{len(made)}"
            write_json(folder / "run.json", run)
            for n, cell in enumerate(cells):
                write_json(folder / "cells" / f"{n:03}.json", cell)
            made.append(str(folder))
        return made[-len(runs) :]

    return write


def rows(capsys):
    """What --format json printed, and its rows by method and column."""
    whole = json.loads(capsys.readouterr().out)
    return whole, {(r["method"], r["column"]): r for r in whole["rows"]}


def test_the_difference_is_paired_and_has_the_reports_interval(make, folders, capsys):
    a, b = records(make), records(make, worse=0.4)
    assert command.main([*folders(a, b), "--format", "json"]) == 0
    whole, found = rows(capsys)
    own = found["srd_0.01", "psnr"]

    def psnr(cells):
        return [s.value for c in cells if c.method == "srd_0.01" for s in c.scores if s.metric.name == "psnr"]

    prompts = [c.prompt_index for c in a[1] if c.method == "srd_0.01"]
    told = statistics.paired_difference(psnr(b[1]), psnr(a[1]), prompts)
    assert (own["difference"], own["low"], own["high"]) == pytest.approx(
        (told.estimate.mean, told.low, told.high)
    )
    assert (own["n"], own["clusters"], own["lacking"]) == (24, 12, 0)
    values = {r.method: r for r in table.rows(*b)}["srd_0.01"]
    assert own["b"] == pytest.approx(values["psnr"].value)
    assert found["srd_0.01", "shapes/total"]["b"] == pytest.approx(values["shapes/total"].value)
    assert found["srd_0.01", "latency"]["difference"] == 0
    assert whole["passed"] is None


def test_totals_differ_by_the_same_draws(make, folders, capsys):
    """Prompts are 22 points apart; the difference of two runs on them is known to a tenth."""
    command.main([*folders(records(make), records(make, worse=1.0)), "--format", "json"])
    total = rows(capsys)[1]["srd_0.01", "shapes/total"]
    assert total["difference"] == pytest.approx(-1.0, abs=0.1)
    assert -1.2 < total["low"] < total["high"] < -0.8


@pytest.mark.parametrize(
    ("worse", "arguments", "code"),
    [
        (1.0, ["psnr=0.5"], 1),
        (0.4, ["psnr=0.5"], 0),
        (-3.0, ["psnr=0.5"], 0),  # better is no regression
        (1.0, ["psnr=2"], 0),
        (1.0, ["total=0.3"], 1),
        (1.0, ["total=3", "psnr=3"], 0),
        (1.0, ["lpips=0.01"], 0),
    ],
)
def test_only_what_got_worse_than_its_margin_closes_the_gate(make, folders, capsys, worse, arguments, code):
    runs = folders(records(make), records(make, worse=worse))
    options = [word for text in arguments for word in ("--margin", text)]
    assert command.main([*runs, *options]) == code
    said = " ".join(capsys.readouterr().out.split())
    assert ("past the margins" in said) == (code == 1)
    assert ("within the margins" in said) == (code == 0)


def test_a_gate_prints_the_columns_with_margins_and_how_each_failed(make, folders, capsys):
    runs = folders(records(make), records(make, worse=1.0))
    assert command.main([*runs, "--margin", "psnr=0.5", "--margin", "latency=1"]) == 1
    said = capsys.readouterr().out
    assert "SSIM" not in said and "total" not in said.partition("bootstrap")[0]
    latency = next(line for line in said.splitlines() if line.startswith("  latency"))
    assert "equal" in latency and "holds" in latency
    failed = said.partition("FAILED")[2].splitlines()
    assert [line.partition(":")[0] for line in failed[1:]] == ["  srd_0.01, PSNR"]
    assert "worse: −0.9" in failed[1] and failed[1].endswith("dB, 0.5 allowed")


def test_lower_is_better_is_worse_upwards(make, folders, capsys):
    a, b = records(make), records(make)
    raised = [
        c.model_copy(
            update={
                "scores": tuple(
                    s.model_copy(update={"value": s.value + 0.1}) if s.metric.name.startswith("lpips") else s
                    for s in c.scores
                )
            }
        )
        for c in b[1]
    ]
    assert command.main([*folders(a, (b[0], raised)), "--margin", "lpips=0.05"]) == 1
    assert command.main([*folders((b[0], raised), a), "--margin", "lpips=0.05"]) == 0


def test_where_the_interval_reaches_past_the_margin_strict_closes_the_gate(make, folders, capsys):
    runs = folders(records(make, noise=2.0), records(make, worse=0.9, noise=2.0))
    gate = [*runs, "--method", "srd_0.01", "--margin", "psnr=0.6", "--format", "json"]
    assert command.main(gate) == 0
    whole, found = rows(capsys)
    assert found["srd_0.01", "psnr"]["verdict"] == "not shown" and whole["passed"]
    assert command.main([*gate, "--strict"]) == 1
    assert not rows(capsys)[0]["passed"]


def test_a_gate_does_not_open_because_numbers_went_away(make, folders, capsys):
    run, cells = records(make)
    gone = [c.model_copy(update={"scores": ()}) if c.method == "srd_0.01" else c for c in cells]
    assert command.main([*folders((run, cells), (run, gone)), "--margin", "psnr=0.5"]) == 1
    assert "srd_0.01, PSNR: cannot be told" in " ".join(capsys.readouterr().out.split())
    left = [c for c in cells if c.method != "srd_0.01"]
    less = run.model_copy(update={"methods": make.named("small", "large")})
    assert command.main([*folders((run, cells), (less, left)), "--margin", "psnr=0.5"]) == 1
    assert "srd_0.01: not in B" in " ".join(capsys.readouterr().out.split())


def test_videos_that_one_run_lacks_are_told_and_left_out(make, folders, capsys):
    run, cells = records(make)
    failed = [
        c.model_copy(update={"outcome": "failed", "reason": "out of memory", "scores": ()})
        if (c.method, c.prompt_index) == ("srd_0.01", 3)
        else c
        for c in cells
    ]
    gate = [*folders((run, cells), (run, failed)), "--margin", "psnr=0.5"]
    assert command.main(gate) == 0
    assert "B: 2 of 24 videos failed: out of memory" in " ".join(capsys.readouterr().out.split())
    assert command.main([*gate, "--format", "json"]) == 0
    own = rows(capsys)[1]["srd_0.01", "psnr"]
    assert (own["n"], own["clusters"], own["lacking"]) == (22, 11, 2)
    assert command.main([*gate, "--strict"]) == 1


def test_prompts_are_paired_by_their_words_not_their_numbers(make, folders, capsys):
    a, b = records(make), records(make, prompts=range(11, 1, -1))
    assert command.main([*folders(a, b), "--format", "json"]) == 0
    whole, found = rows(capsys)
    assert found["srd_0.01", "psnr"]["n"] == 20
    assert abs(found["srd_0.01", "psnr"]["difference"]) < 0.1  # prompts are 1 dB apart
    assert "only in A: 4 of its 24 prompts × seeds" in whole["alone"]


def test_two_protocols_are_refused_and_marked_when_told_to(make, folders, capsys):
    a = records(make, packages={"torch": "2.9.0"}, resolved={"family": {"shift": 5.0, "name": "a"}})
    run, cells = records(
        make,
        packages={"torch": "2.10.0"},
        resolved={"family": {"shift": 3.0, "name": "b"}},
        protocol="q" * 64,
    )
    b = run, [c.model_copy(update={"protocol": "q" * 64}) for c in cells]
    runs = folders(a, b)
    assert command.main(runs) == 2
    said = capsys.readouterr().err
    assert "packages.torch: 2.9.0 → 2.10.0" in said and "family.shift: 5.0 → 3.0" in said
    assert command.main([*runs, "--across", "--format", "json"]) == 0
    whole, found = rows(capsys)
    assert all(r["across"] for r in found.values())
    kinds = {c["field"]: c["kind"] for c in whole["changes"]}
    assert kinds["family.shift"] == kinds["packages.torch"] == "protocol" and kinds["family.name"] == "other"
    assert command.main([*runs, "--across"]) == 0
    assert "PSNR ↑ dB‡" in capsys.readouterr().out


def test_noises_that_are_seeded_otherwise_are_two_protocols(make, folders, capsys):
    a = records(make, resolved={"suite": {"kind": "prompts"}})
    seeded = {"suite": {"kind": "prompts", "seeding": {"prompt": 100000, "seed": 1}}}
    run, cells = records(make, resolved=seeded, protocol="q" * 64)
    b = run, [c.model_copy(update={"protocol": "q" * 64}) for c in cells]
    assert command.main(folders(a, b)) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "suite.seeding.prompt: – → 100000" in said and "not in the record" not in said


def test_of_a_method_that_became_another_path_it_says_what_differs(make, folders, capsys):
    """As a checkpoint that was trained on: paired by its label, and no longer the same."""

    def own(content):
        run, cells = records(make)
        asked = next(m for m in run.methods if m.name == "srd_0.01")
        path = [{"denoiser": {"model": "large", "weights": {"source": "mine", "content": content}}}]
        other = asked.model_copy(update={"id": content * 12, "path": path})
        methods = tuple(other if m is asked else m for m in run.methods)
        mine = {"method_id": other.id, "path": path}
        cells = [c.model_copy(update=mine) if c.method_id == asked.id else c for c in cells]
        return run.model_copy(update={"methods": methods}), cells

    assert command.main([*folders(own("a"), own("b")), "--format", "json"]) == 0
    whole, found = rows(capsys)
    (change,) = whole["changes"]
    assert change["field"].startswith("method ") and change["field"].endswith(
        "path.0.denoiser.weights.content"
    )
    assert (change["a"], change["b"], change["kind"]) == ("a", "b", "other")
    assert ("srd_0.01", "psnr") in found


def test_a_protocol_that_differs_in_nothing_recorded_says_so(make, folders, capsys):
    run, cells = records(make, protocol="q" * 64)
    b = run, [c.model_copy(update={"protocol": "q" * 64}) for c in cells]
    assert command.main(folders(records(make), b)) == 2
    assert "weights, or srbench's own version of its bits" in capsys.readouterr().err


def test_two_definitions_of_a_metric_are_two_protocols(make, folders, capsys):
    run, cells = records(make)
    newer = make.psnr.model_copy(update={"version": 2})
    other = [
        c.model_copy(
            update={
                "scores": tuple(
                    s.model_copy(update={"metric": newer}) if s.metric.name == "psnr" else s for s in c.scores
                )
            }
        )
        for c in cells
    ]
    assert command.main(folders((run, cells), (run, other))) == 2
    assert "metric.psnr.version: 1 → 2" in capsys.readouterr().err


def test_latency_of_two_devices_is_marked_and_its_margin_refused(make, folders, capsys):
    runs = folders(records(make), records(make, device="NVIDIA H200"))
    assert command.main([*runs, "--format", "json"]) == 0
    _, found = rows(capsys)
    assert {c for (_, c), r in found.items() if r["across"]} == {"latency", "speedup"}
    assert command.main([*runs, "--margin", "latency=1"]) == 2
    assert "device: NVIDIA H100 → NVIDIA H200" in capsys.readouterr().err
    assert command.main([*runs, "--margin", "psnr=1"]) == 0


def test_speedups_interval_is_that_of_a_difference_of_ratios(make, folders, capsys):
    a, (run, cells) = records(make), records(make)
    later = [
        make.cell("srd_0.01", c.prompt_index, c.seed, switch=20 + c.prompt_index, scores=c.scores)
        if c.method == "srd_0.01"
        else c
        for c in cells
    ]
    command.main([*folders(a, (run, later)), "--format", "json"])
    own = rows(capsys)[1]["srd_0.01", "speedup"]
    before, after = ({r.method: r for r in table.rows(*x)}["srd_0.01"]["speedup"] for x in (a, (run, later)))
    assert (own["a"], own["b"]) == pytest.approx((before.value, after.value))
    assert own["difference"] == pytest.approx(after.value - before.value)
    assert own["low"] < own["difference"] < own["high"] < 0


def test_csv_has_a_line_a_row_and_all_digits(make, folders, capsys):
    assert command.main([*folders(records(make), records(make, worse=1)), "--format", "csv"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    own = next(x for x in lines if (x["method"], x["column"]) == ("srd_0.01", "psnr"))
    assert float(own["low"]) < float(own["difference"]) < float(own["high"])
    assert own["across"] == "false" and own["higher_is_better"] == "true"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--margin", "psn=1"], "did you mean psnr"),
        (["--margin", "psnr=-1"], "COLUMN=NUMBER"),
        (["--margin", "psnr"], "COLUMN=NUMBER"),
        (["--margin", "switch_step=1"], "a column in which more or less is worse"),
        (["--column", "ssmi"], "did you mean ssim"),
        (["--method", "smal"], "did you mean small"),
    ],
)
def test_mistakes(make, folders, capsys, arguments, told):
    assert command.main([*folders(records(make), records(make)), *arguments]) == 2
    assert told in capsys.readouterr().err


def test_nothing_in_common_and_no_run(make, folders, tmp_path, capsys):
    run, cells = records(make)
    other = run.model_copy(update={"prompts": tuple(f"other {p}" for p in run.prompts)})
    renamed = [c.model_copy(update={"prompt": f"other {c.prompt_index}"}) for c in cells]
    assert command.main(folders((run, cells), (other, renamed))) == 2
    assert "no prompt and seed in common" in capsys.readouterr().err
    assert command.main([str(tmp_path), str(tmp_path)]) == 2
    assert "a file written by a run" in capsys.readouterr().err


def test_one_name_of_several_paths_is_matched_by_its_path(make, folders, capsys):
    run, cells = records(make)
    twin = [c.model_copy(update={"method": "srd", "label": f"srd {c.method_id}"}) for c in cells]
    assert command.main([*folders((run, cells), (run, twin)), "--format", "json"]) == 0
    whole, _ = rows(capsys)
    assert whole["alone"] == [] and {r["difference"] for r in whole["rows"]} == {0}


def without(cells, stem):
    """The cells without the scores of one suite or metric."""
    return [
        c.model_copy(update={"scores": tuple(s for s in c.scores if not s.metric.name.startswith(stem))})
        for c in cells
    ]


def test_metrics_that_one_run_alone_scored_are_no_difference_of_protocol(make, folders, capsys):
    run, cells = records(make)
    runs = folders((run, without(cells, "shapes/")), (run, cells))
    assert command.main([*runs, "--format", "json"]) == 0
    whole, found = rows(capsys)
    assert whole["changes"] == [] and whole["alone"] == ["B also scored shapes (2 dimensions)"]
    assert found["srd_0.01", "psnr"]["difference"] == 0
    assert not any(r["across"] for r in found.values()) and "shapes/total" not in {c for _, c in found}
    assert command.main([*runs[::-1], "--format", "json"]) == 0
    assert rows(capsys)[0]["alone"] == ["A also scored shapes (2 dimensions)"]


def test_a_metric_of_two_definitions_marks_its_own_column_alone(make, folders, capsys):
    run, cells = records(make)
    newer = make.dimension("shapes/sharp", "quality").model_copy(update={"version": 2})
    other = [
        c.model_copy(
            update={
                "scores": tuple(
                    s.model_copy(update={"metric": newer}) if s.metric.name == newer.name else s
                    for s in c.scores
                )
            }
        )
        for c in cells
    ]
    assert command.main([*folders((run, cells), (run, other)), "--across", "--format", "json"]) == 0
    _, found = rows(capsys)
    marked = {c for (_, c), r in found.items() if r["across"]}
    assert marked == {"shapes/quality", "shapes/semantic", "shapes/total"}


def test_times_that_differ_alike_in_every_prompt_have_no_interval(make, folders, capsys):
    """As of a synthetic machine, or of the same videos from one store: a width of 0 would be no knowledge."""
    run, cells = records(make)
    slower = [
        c.model_copy(update={"step_seconds": tuple(2 * s for s in c.step_seconds)})
        if c.method == "small"
        else c
        for c in cells
    ]
    assert command.main([*folders((run, cells), (run, slower)), "--format", "json"]) == 0
    _, found = rows(capsys)
    small = found["small", "latency"]
    assert small["difference"] > 100 and small["low"] is small["high"] is None
    assert small["reason"].startswith("no interval: ")
    assert found["large", "latency"]["difference"] == 0 and found["large", "latency"]["reason"] == ""


def test_a_gate_says_what_failed_where_nothing_is_past_a_margin(make, folders, capsys):
    run, cells = records(make)
    left = [c for c in cells if c.method != "srd_0.01"]
    less = run.model_copy(update={"methods": make.named("small", "large")})
    assert command.main([*folders((run, cells), (less, left)), "--margin", "psnr=0.5"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert said.endswith("FAILED, though no number is past the margins (psnr 0.5): srd_0.01: not in B")


def test_the_first_change_of_the_protocol_is_not_passed_over(make, folders, capsys):
    """The cells share their protocol; the records of the runs differ in theirs and in one field."""
    a, b = records(make), records(make, protocol="q" * 64, threads=2)
    assert command.main([*folders(a, b), "--across", "--format", "json"]) == 0
    changed = [c for c in rows(capsys)[0]["changes"] if c["kind"] == "protocol"]
    assert [(c["field"], c["a"], c["b"]) for c in changed] == [("threads", "1", "2")]


def test_what_made_two_runs_is_compared_as_a_whole(make, folders, capsys):
    """Other weights are another protocol; another commit, or a package that one run alone names, is not."""
    later = Software(commit="b" * 40, dirty=False, packages={"flash-attn": "2.8"})
    run, cells = records(make, weights={"large": {"transformer": "1"}}, packages={"torch": "2.9"})
    newer = [c.model_copy(update={"made": later}) if c.method == "srd_0.01" else c for c in cells]
    other = run.model_copy(update={"weights": {"large": {"transformer": "2"}}})
    assert command.main([*folders((run, cells), (other, newer)), "--across", "--format", "json"]) == 0
    whole, _ = rows(capsys)
    assert {c["field"]: c["kind"] for c in whole["changes"]} == {
        "weights.large.transformer": "protocol",
        "commit": "other",
        "packages.flash-attn": "other",
    }
    assert whole["b"]["commit"] == f"0123456789abcdef (dirty), {'b' * 40}"
