"""The GPU bench, without a GPU: its sizes, its arithmetic, and one family's twin through the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from srbench.config import attention
from srbench.config.experiment import Role
from tests.bench import gpu


@pytest.mark.parametrize(
    ("kind", "role", "billions"),
    [
        ("wan", "large", 14.288),
        ("wan", "small", 1.419),
        ("cogvideox", "large", 5.570),
        ("cogvideox", "small", 1.694),
    ],
)
def test_the_models_are_of_true_size_and_in_the_dtypes_that_loading_gives(
    kind: str, role: Role, billions: float
) -> None:
    model = gpu.random_model(kind, role, torch.device("meta"))
    assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(billions, abs=5e-4)
    kept = {name for name, p in model.named_parameters() if p.dtype == torch.float32}
    whole = type(model)._keep_in_fp32_modules or ()
    assert kept == {n for n, _ in model.named_parameters() if any(part in n for part in whole)}
    assert torch.get_default_dtype() == torch.float32


def bench(**rows: gpu.Row) -> gpu.Bench:
    made = gpu.Bench.__new__(gpu.Bench)
    made.rows = {r.name: r for r in rows.values()}
    made.reckon()
    return made


def test_what_a_row_should_take_follows_from_each_model_alone() -> None:
    found = bench(
        large=gpu.Row("large", seconds=50.0, computed={"large": 1.0}, steps={"large computed": 50}),
        small=gpu.Row("small", seconds=10.0, computed={"small": 0.2}, steps={"small computed": 50}),
        near=gpu.Row("switch at 10", seconds=18.5, steps={"large computed": 10, "small computed": 40}),
        far=gpu.Row("switch at 20", seconds=28.0, steps={"large computed": 20, "small computed": 30}),
        tea=gpu.Row(
            "large + TeaCache",
            seconds=26.0,
            reused={"large": 0.02},
            steps={"large computed": 25, "large reused": 25},
        ),
        sage=gpu.Row("large + sage", seconds=40.0, steps={"large computed": 50}),
        gone=gpu.Row("large + flash", "skipped", "needs flash-attn"),
    ).rows
    near, far = found["switch at 10"], found["switch at 20"]
    assert near.implied == pytest.approx(18.0) and near.speedup == pytest.approx(50 / 18.5)
    assert near.off == pytest.approx(18.5 / 18 - 1) and not near.flagged
    assert far.implied_speedup == pytest.approx(50 / 26) and far.flagged
    assert found["large + TeaCache"].implied == pytest.approx(25.5)
    assert (found["large + sage"].speedup, found["large + sage"].implied) == (1.25, None)
    told = gpu.table("wan21_480p", list(found.values()))
    assert told.count("FLAGGED") == 1 and "skipped: needs flash-attn" in told


@pytest.mark.slow
def test_a_twin_goes_through_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--families", "cogvideox", "--scale", "tiny", "--device", "cpu", "--repeats", "1"]
    assert gpu.main([*words, "--out", str(tmp_path)]) == 0
    assert "no result" in capsys.readouterr().out.splitlines()[0]
    (file,) = tmp_path.iterdir()
    told = json.loads(file.read_text("utf-8"))
    assert told["scale"].startswith("tiny") and told["device"] and told["packages"]["torch"]
    rows = {r["name"]: r for r in told["families"]["cogvideox"]}
    assert rows["large, stock"]["same_bits"] is True
    assert rows["switch at 2"]["steps"] == {"large computed": 2, "small computed": 8}
    assert rows["large + TeaCache"]["steps"] == {"large computed": 6, "large reused": 4}
    if attention.mistake("sage", "bench"):
        assert (
            rows["large + sage"]["outcome"] == "skipped" and "srbench[sage]" in rows["large + sage"]["reason"]
        )
    for name in ("large", "small", "switch at 4", "switch at 2 + TeaCache"):
        assert rows[name]["outcome"] == "done" and rows[name]["seconds"] > 0
