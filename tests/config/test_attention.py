"""An attention package's version names what was computed with it, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srbench.__main__ import Place, record, refuse_place
from srbench.config import attention, fingerprint, yaml_files
from srbench.config.experiment import Denoiser, Experiment, check
from srbench.config.registry import identity
from srbench.errors import UserError
from srbench.families._attention import refuse_other_version
from srbench.planning.plan import Keys, Unit, settings
from srbench.store.objects import Store
from srbench.store.records import write_json

GROUND = {"torch": "2.9", "device": "CPU", "threads": "1"}
UNIT = Unit(0, "a red circle moving left on a black background", 0)
PLAIN = {"path": [{"model": "large"}]}
SAGE = {
    "path": [
        {"model": "large", "until": {"kind": "fixed_step", "step": 10}},
        {"model": "small", "attention": "sage"},
    ]
}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`install("2.2.0")`: a sageattention of that version and no content; None takes it away."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def made(version: str | None) -> None:
        site = tmp_path / "site"
        for old in site.glob("*/*"):
            old.unlink()
        for old in site.glob("*"):
            old.rmdir()
        if version is not None:
            for name, text in (
                ("sageattention/__init__.py", ""),
                (f"sageattention-{version}.dist-info/METADATA", f"Name: sageattention\nVersion: {version}\n"),
            ):
                (site / name).parent.mkdir(parents=True, exist_ok=True)
                (site / name).write_text(text)
        attention.importlib.invalidate_caches()

    made(None)
    if attention.installed("sage"):
        pytest.skip("a real sageattention is installed here")
    return made


def experiment(methods: dict[str, Any] | None = None) -> Experiment:
    plain = {
        "name": "trial",
        "family": yaml_files.read("family", "shapes"),
        "suite": {"kind": "prompts", "prompts": [UNIT.prompt]},
        "method": methods or {"large": PLAIN, "sage": SAGE},
        "metric": {},
        "engine": {"kind": "local"},
    }
    return check(plain)


def keys(made: Experiment) -> dict[str, str]:
    return {m.name: Keys(made, GROUND).video(m, UNIT) for m in made.methods}


def test_a_package_is_told_with_its_version(install: Any) -> None:
    assert attention.installed("sage") is None
    install("2.2.0")
    assert attention.installed("sage") == "sageattention 2.2.0"
    assert attention.installed("native") is None and attention.installed(None) is None


def test_another_version_names_the_videos_of_its_backend_anew_and_no_others(install: Any) -> None:
    without = keys(experiment())
    install("2.2.0")
    old = experiment()
    install("2.2.1")
    new = experiment()
    assert without["large"] == keys(old)["large"] == keys(new)["large"]
    assert len({without["sage"], keys(old)["sage"], keys(new)["sage"]}) == 3
    assert [m.id for m in old.methods] == [m.id for m in new.methods]  # still the same row
    protocols = {Keys(e, GROUND).protocol for e in (old, new)}
    assert len(protocols) == 1


def test_a_denoiser_without_a_package_is_named_as_before_there_were_any() -> None:
    assert "attention_package" not in identity(Denoiser(model="large", attention="native"))
    package = "sageattention 2.2.0"
    named = Denoiser(model="large", attention="sage", attention_package=package)
    assert identity(named)["attention_package"] == package
    assert named.id != Denoiser(model="large", attention="sage").id  # so states and step times differ too


def test_the_record_tells_the_version(install: Any, tmp_path: Path) -> None:
    install("2.2.0")
    made = experiment()
    about = record(made, [], tmp_path / "run", tmp_path / "store", GROUND)
    assert about.packages["sageattention"] == "2.2.0"
    assert [m.packages for m in about.methods] == [(), ("sageattention 2.2.0",)]
    assert "sageattention 2.2.0" in str(settings(made))
    native = experiment({"large": PLAIN})
    assert "sageattention" not in record(native, [], tmp_path / "other", tmp_path / "store", GROUND).packages


def test_a_run_keeps_one_version_a_row(install: Any, tmp_path: Path) -> None:
    """First skipped for want of the package, then run, then refused with another version."""
    here = fingerprint.ground(1)
    place = Place(tmp_path / "run", Store(tmp_path / "store"), here)

    def begin() -> None:
        made = experiment()
        refuse_place(made, place)
        write_json(place.run / "run.json", record(made, [], place.run, place.store.root, here))

    begin()
    install("2.2.0")
    begin()
    install("2.2.1")
    with pytest.raises(UserError) as told:
        begin()
    assert "where sage ran on sageattention 2.2.0" in told.value.got
    assert "2.2.1" in told.value.expected and "run=…" in told.value.do
    install(None)  # skipped again; what it ran on is not forgotten
    begin()
    install("2.2.1")
    with pytest.raises(UserError):
        begin()


def test_a_worker_with_another_version_refuses(install: Any) -> None:
    install("2.2.0")
    named = experiment().method("sage").segments[1].denoiser
    refuse_other_version(named)
    install("2.2.1")
    with pytest.raises(UserError, match=r"2\.2\.0") as told:
        refuse_other_version(named)
    assert "2.2.1" in told.value.got
