"""The ground of a video's bits: machines and settings whose bits differ have other keys."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from srbench.config import fingerprint

XEON = "fpu avx2 fma avx512f avx512vl avx512bw avx512dq avx512_vnni avx512_bf16"


def listing(flags: str, vendor: str = "GenuineIntel") -> str:
    """/proc/cpuinfo of two cores."""
    core = f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\n"
    return f"{core}\n{core}\n"


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`on(cpuinfo)`: the ground of a CPU on a machine that says this."""

    def stand(text: str) -> dict[str, str]:
        real = Path.read_text
        with monkeypatch.context() as patch:
            patch.setattr(
                Path, "read_text", lambda p, *a, **k: text if str(p) == "/proc/cpuinfo" else real(p, *a, **k)
            )
            fingerprint._cpu_capability.cache_clear()
            return fingerprint.ground(1, "cpu")

    yield stand
    fingerprint._cpu_capability.cache_clear()


def test_cpus_whose_bits_differ_stand_on_different_ground(on: Any) -> None:
    """All four have AVX-512; bfloat16 goes another way with AMX, and MKL by who made the CPU."""
    grounds = [
        on(listing(XEON)),
        on(listing(f"{XEON} amx_tile amx_bf16")),
        on(listing(XEON.replace(" avx512_bf16", ""))),
        on(listing(XEON, "AuthenticAMD")),
    ]
    assert {g["device"].split()[-1] for g in grounds} == {"AVX512"}
    assert len({str(g) for g in grounds}) == 4
    assert on(listing(XEON)) == on(listing(f"{XEON} rdtscp")), "what no kernel goes by is no other ground"


@pytest.mark.parametrize(
    "name", ["ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "NVIDIA_TF32_OVERRIDE", "ATEN_CPU_CAPABILITY"]
)
def test_a_variable_that_chooses_kernels_is_ground_where_it_is_set(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "_cpu_capability", lambda: "AVX512")
    monkeypatch.delenv(name, raising=False)
    without = fingerprint.ground(1, "cpu")
    monkeypatch.setenv(name, "")
    assert fingerprint.ground(1, "cpu") == without
    monkeypatch.setenv(name, "AVX2")
    assert fingerprint.ground(1, "cpu") == without | {name: "AVX2"}


@pytest.mark.parametrize("setting", ["mps", "xpu", "xpu:1"])
def test_another_device_is_not_called_a_cpu(setting: str) -> None:
    assert fingerprint.device(setting).split()[0] == setting.partition(":")[0]
    assert "cpu" not in fingerprint.ground(1, setting)
    assert fingerprint.device("cpu:0") == fingerprint.device("cpu")


def git(folder: Path, *words: str) -> str:
    name = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    done = subprocess.run(["git", *name, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Somebody's repository with one commit."""
    git(tmp_path, "init", "-q")
    (tmp_path / "paper.tex").write_text("a paper")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "a paper")
    return tmp_path


def package_in(folder: Path) -> Path:
    package = folder / "srbench"
    package.mkdir(parents=True)
    (package / "config").mkdir(parents=True)
    (package / "config" / "fingerprint.py").write_text("")
    return package


def test_the_commit_is_that_of_srbenchs_own_checkout(project: Path) -> None:
    package = package_in(project)
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "srbench")
    head = git(project, "rev-parse", "HEAD")
    assert fingerprint.commit(package) == (head, False)
    (package / "config" / "fingerprint.py").write_text("changed")
    assert fingerprint.commit(package) == (head, True)


@pytest.mark.parametrize("is_tracked", [False, True])
def test_an_installed_package_reports_no_commit_of_the_repository_around_it(
    project: Path, is_tracked: bool
) -> None:
    package = package_in(project / ".venv" / "site-packages")
    if is_tracked:
        git(project, "add", "-f", ".")
        git(project, "commit", "-q", "-m", "everything, the environment too")
    assert fingerprint.commit(package) == (None, None)


def test_a_package_installed_from_a_repository_reports_the_commit_it_was_built_from(project: Path) -> None:
    package = package_in(project / ".venv" / "site-packages")
    about = package.parent / "srbench-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: srbench\nVersion: 0.1.0\n")
    origin = {"url": "https://example.org/srbench", "vcs_info": {"vcs": "git", "commit_id": "c" * 40}}
    (about / "direct_url.json").write_text(json.dumps(origin))
    assert fingerprint.commit(package) == ("c" * 40, None)
    (about / "direct_url.json").write_text('["no object"]')
    assert fingerprint.commit(package) == (None, None)


def test_the_commit_is_found_inside_a_git_hook_too(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git names the repository of a hook by a variable."""
    package = package_in(project / "elsewhere")
    monkeypatch.setenv("GIT_DIR", str(project / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(package))
    assert fingerprint.commit(package) == (None, None)
