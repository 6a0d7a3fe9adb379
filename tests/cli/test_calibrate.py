"""`srbench calibrate`: what it fits on, what it refuses before a model runs, and what it never overwrites."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srbench.cli import calibrate
from srbench.config import yaml_files
from srbench.config.experiment import check
from srbench.config.registry import build
from srbench.errors import UserError, UserErrors

MODEL = Path(calibrate.__file__).parents[1] / "shapes" / "model"


class Loaded(Exception):
    """The family was opened: everything before it was in order."""


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A family that cannot be opened, so that nothing runs."""

    def opened(self: Any) -> None:
        raise Loaded

    monkeypatch.setattr("srbench.families.wan.Wan.open", opened)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["srbench.cli.calibrate", "teacache", *arguments])
    return calibrate.main()


@pytest.mark.parametrize("prompts", ["1", "0", "-3"])
def test_a_fit_needs_two_prompts(
    prompts: str, closed: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="2 or more: half are fitted, half test the fit"):
        run(monkeypatch, "--prompts", prompts, "--out", str(tmp_path / "fit.json"))


def test_the_installed_package_is_left_as_it_is(closed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(MODEL.rglob("*"))
    with pytest.raises(UserError, match="the installed package is left as it is"):
        run(monkeypatch, "--prompts", "2")
    with pytest.raises(UserError, match="the installed package is left as it is"):
        run(monkeypatch, "--prompts", "2", "--overwrite")
    assert sorted(MODEL.rglob("*")) == before


def test_a_file_is_replaced_only_where_that_is_asked_for(
    closed: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "fit.json"
    file.write_text("mine")
    with pytest.raises(UserError, match="--overwrite, or --out another file"):
        run(monkeypatch, "--prompts", "2", "--out", str(file))
    with pytest.raises(Loaded):
        run(monkeypatch, "--prompts", "2", "--out", str(file), "--overwrite")
    assert file.read_text() == "mine"


# -- suites


def test_the_embedded_suite_gives_its_tune_split() -> None:
    tune = build("suites", yaml_files.read("suite", "shapes") | {"split": "tune", "prompts": 4}, "suite")
    assert tuple(calibrate._texts("shapes", 4)) == tune.list_prompts()


@pytest.mark.parametrize("name", ["mine.txt", "mine.csv", "mine.jsonl"])
def test_a_file_of_prompts_is_a_suite_too(name: str, tmp_path: Path) -> None:
    prompts = [f"prompt {i}" for i in range(10)]
    lines = {"txt": prompts, "csv": ["prompt", *prompts], "jsonl": [json.dumps(p) for p in prompts]}
    (tmp_path / name).write_text("\n".join(lines[name.partition(".")[2]]))
    spread = calibrate._texts(str(tmp_path / name), 5)
    assert spread == ["prompt 0", "prompt 2", "prompt 4", "prompt 6", "prompt 8"]


def test_vbenchs_suite_is_taken_as_it_is_and_spread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    info = [{"prompt_en": f"prompt {i}", "dimension": ["color"]} for i in range(12)]
    (tmp_path / "info.json").write_text(json.dumps(info))
    read = yaml_files.read
    monkeypatch.setattr(
        yaml_files, "read", lambda group, name: read(group, name) | {"info": str(tmp_path / "info.json")}
    )
    assert calibrate._texts("vbench", 3) == ["prompt 0", "prompt 4", "prompt 8"]


def test_more_prompts_than_a_suite_has_and_a_suite_without_prompts(tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"two\.txt, which has 2"):
        calibrate._texts(str(tmp_path / "two.txt"), 4)
    with pytest.raises(UserError, match=r"--suite FILE\.txt"):
        calibrate._texts("prompts", 4)
    with pytest.raises(UserError):
        calibrate._texts(str(tmp_path / "nowhere.txt"), 2)


# -- fits


def points(noise: float, seed: int = 0) -> np.ndarray:
    """(prompts, steps − 1, 2): y = 2 x and noise."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.1, 1, (2, 30))
    return np.stack([x, 2 * x + noise * rng.standard_normal(x.shape)], -1)


def test_a_good_fit_is_told_without_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    calibrate._tell("large default", calibrate.fit(points(0.01), points(0.01, 1)))
    assert capsys.readouterr().err == ""


def test_a_fit_that_does_not_predict_is_told_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    calibrate._tell("large default", calibrate.fit(points(5.0), points(5.0, 1)))
    assert "does not predict how much the output changes" in capsys.readouterr().err


def test_an_r2_that_is_not_defined_is_a_word_and_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    flat = points(0.0)
    flat[..., 1] = 0.25
    made = calibrate.fit(flat, flat)
    assert made.r2_held_out is None
    calibrate._tell("small default", made)
    told = capsys.readouterr()
    assert "on held-out prompts not defined" in told.out and "warning: small default" in told.err


def test_changes_that_are_no_numbers_give_no_fit() -> None:
    broken = points(0.1)
    broken[0, 3, 1] = np.nan
    with pytest.raises(UserError, match="not finite"):
        calibrate._tell("large default", calibrate.fit(broken, points(0.1)))


@pytest.mark.slow
def test_the_command_writes_what_a_family_reads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = shutil.copytree(MODEL, tmp_path / "model", ignore=lambda *_: ["teacache.json"])
    plain = yaml_files.read("family", "shapes") | {"steps": 8}
    for role in ("large", "small", "components"):
        plain[role] = plain[role] | {"source": str(folder)}
    read = yaml_files.read
    monkeypatch.setattr(
        yaml_files,
        "read",
        lambda group, name: plain if (group, name) == ("family", "mine") else read(group, name),
    )
    assert run(monkeypatch, "--family", "mine", "--prompts", "2") == 0
    assert "held-out prompts" in capsys.readouterr().out
    family = build("families", plain, "family")
    assert len(family.polynomials("large")["default"]) == calibrate.DEGREE + 1


# -- polynomials that are given


def experiment(**accelerator: Any) -> Any:
    segment = {"model": "large", "accelerators": [{"kind": "teacache", "threshold": 0.1, **accelerator}]}
    return check(
        {
            "name": "trial",
            "family": yaml_files.read("family", "shapes"),
            "suite": {"kind": "prompts", "prompts": ["a cat"]},
            "method": {"large": {"path": [{"model": "large"}]}, "tea": {"path": [segment]}},
            "metric": {},
            "engine": {"kind": "local"},
        }
    )


def test_no_coefficients_are_no_polynomial() -> None:
    with pytest.raises(UserErrors, match="coefficients"):
        experiment(coefficients=[])
    (segment,) = experiment(coefficients=[0.5]).method("tea").segments
    assert segment.denoiser.accelerators[0].coefficients == (0.5,)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"large": []}', '{"large": {"default": {}}}', '{"large": {"default": 5}}']
    + ['{"large": {"default": {"coefficients": %s}}}' % c for c in ("[]", "null", '["x"]', "[NaN]", "5")],  # noqa: UP031
)
def test_a_damaged_file_of_polynomials_is_a_mistake(text: str, tmp_path: Path) -> None:
    plain = yaml_files.read("family", "shapes")
    plain["components"] = {"source": str(shutil.copytree(MODEL, tmp_path / "model"))}
    (tmp_path / "model" / "teacache.json").write_text(text)
    with pytest.raises(UserError, match="which holds no polynomials"):
        build("families", plain, "family").polynomials("large")
