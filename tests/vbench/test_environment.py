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
    assert "srbench vbench score results/x/y" in told
    assert "srbench vbench setup" in told and "5.8 GB" in told
    assert command.main(["check"]) == 2
    said = capsys.readouterr().err
    assert "VBench's environment is not there" in said and "srbench vbench setup" in said


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


def test_detectron2_is_built_from_its_source_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[list[str], dict[str, str]]] = []

    def run(command: Any, **more: Any) -> Any:
        asked.append((list(command), more.get("env") or {}))
        return subprocess.CompletedProcess(command, 0, "0123abc\n" if command[0] == "git" else "{}", "")

    monkeypatch.setenv("SRBENCH_VBENCH_ENV", str(tmp_path / "env"))
    monkeypatch.setattr("shutil.which", lambda name: "uv")
    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setattr(environment, "refuse_lacking", lambda: None)
    source = tmp_path / "detectron2"
    with pytest.raises(UserError, match="git clone https:"):
        environment.setup(source)
    assert not asked
    (source / "detectron2").mkdir(parents=True)
    for name in ("setup.py", "detectron2/__init__.py"):
        (source / name).touch()
    environment.setup(source)
    build, variables = next((c, v) for c, v in asked if "--no-build-isolation" in c)
    assert build[:5] == ["uv", "pip", "install", "--python", str(tmp_path / "env/bin/python")]
    assert build[-1] == str(source)
    # for a CPU whatever there is, and told apart from other commits of the one version 0.6
    assert variables["CUDA_VISIBLE_DEVICES"] == "" and variables["D2_VERSION_SUFFIX"] == "+g0123abc"
    environment.setup()
    assert sum("--no-build-isolation" in c for c, _ in asked) == 1


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
