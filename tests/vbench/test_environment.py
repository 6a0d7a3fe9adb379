"""The environment's recipe and what is said without it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from srbench.errors import UserError
from srbench.vbench import __main__ as command
from srbench.vbench import environment


def test_every_package_is_pinned_by_version_alone() -> None:
    lines = environment.REQUIREMENTS.read_text("utf-8").splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)
    pinned = dict(line.split("==") for line in lines)
    assert environment.PINS.items() <= pinned.items()
    # openai-clip asks for pkg_resources
    assert int(pinned["setuptools"].split(".")[0]) < 80


def test_the_worker_imports_nothing_of_srbench() -> None:
    assert not re.search(r"^\s*(from|import) srbench", environment.WORKER.read_text("utf-8"), re.M)


def test_without_it_the_sentence_has_the_command_and_the_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SRBENCH_VBENCH_ENV", str(tmp_path / "none"))
    told = environment.after(Path("results/x/y"))
    assert "python -m srbench.vbench score results/x/y" in told
    assert "python -m srbench.vbench setup" in told and "5.8 GB" in told
    assert command.main(["check"]) == 2
    assert "no VBench here" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "lines"), [("vbench", 1), ("shapes", 0)])
def test_a_plan_tells_it_of_vbenchs_prompts_alone(kind: str, lines: int) -> None:
    from srbench.__main__ import vbench_lines

    experiment: Any = SimpleNamespace(suite=SimpleNamespace(kind=kind))
    assert len(vbench_lines(experiment, Path("results/x/y"))) == lines


def test_setup_is_refused_before_it_fills_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*args: Any, **more: Any) -> Any:
        raise AssertionError("nothing may be started")

    monkeypatch.setenv("SRBENCH_VBENCH_ENV", str(tmp_path / "env"))
    monkeypatch.setattr("shutil.which", lambda name: "uv")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("", (), {"free": 3e9}))
    monkeypatch.setattr("subprocess.run", run)
    with pytest.raises(UserError, match=r"3\.0 GB free"):
        environment.setup()


def test_what_uv_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: Any, **more: Any) -> Any:
        return subprocess.CompletedProcess(command, 1, "", "error: no interpreter for Python 3.11\n")

    monkeypatch.setenv("SRBENCH_VBENCH_ENV", str(tmp_path / "env"))
    monkeypatch.setattr("shutil.which", lambda name: "uv")
    monkeypatch.setattr("subprocess.run", run)
    with pytest.raises(UserError, match=r"no interpreter for Python 3\.11"):
        environment.setup()


def test_the_worker_sees_our_weights_no_hub_and_no_path_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    found = environment.clean()
    assert "PYTHONPATH" not in found
    assert (found["VBENCH_CACHE_DIR"], found["TORCH_HOME"]) == (str(tmp_path), str(tmp_path / "torch"))
    assert found["HF_HUB_OFFLINE"] == "1"
