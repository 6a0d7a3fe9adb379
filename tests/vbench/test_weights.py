"""Weights: which dimension wants what, what is there, what may be fetched; no network is asked."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from srbench.vbench import __main__ as command
from srbench.vbench import weights
from srbench.vbench.score import DIMENSIONS

CONTENT = b"weights"
FILE = weights.File("m/w.pth", 1, "someone", "MIT", "https://example.org/w.pth", ("scene",))


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Answers every request with CONTENT; returns what was asked."""
    asked: list[str] = []

    def urlopen(url: str, timeout: float) -> Any:
        asked.append(url)
        return io.BytesIO(CONTENT)

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    return asked


def test_only_temporal_flickering_needs_none(tmp_path: Path) -> None:
    ready = [d for d in DIMENSIONS if not weights.lacking(d, tmp_path)]
    assert ready == ["temporal_flickering"]
    assert 7000 < sum({f.source: f.megabytes for f in weights.FILES}.values()) < 8000


def test_once_placed_a_dimension_is_ready(tmp_path: Path) -> None:
    for file in weights.of("subject_consistency"):
        path = tmp_path / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENT)
    assert weights.lacking("subject_consistency", tmp_path) == ""
    path.write_bytes(b"")  # a download that was cut off at once
    assert file.path in weights.lacking("subject_consistency", tmp_path)


def test_the_sentence_names_the_file_its_place_and_the_command(tmp_path: Path) -> None:
    told = weights.lacking("motion_smoothness", tmp_path)
    assert str(tmp_path / "amt_model" / "amt-s.pth") in told
    assert "MCG-NKU/AMT" in told and "srbench vbench weights" in told


def test_grits_dimensions_also_want_detectron2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRBENCH_VBENCH_ENV", str(tmp_path))
    assert "detectron2" in weights.lacking("color", tmp_path)
    (tmp_path / "lib/python3.11/site-packages/detectron2-0.6.dist-info").mkdir(parents=True)
    assert "detectron2" not in weights.lacking("color", tmp_path)


def test_what_is_free_is_fetched_once_and_what_is_not_is_never_asked_for(
    tmp_path: Path, network: list[str]
) -> None:
    other = replace(FILE, path="m/nc.pth", licence="CC BY-NC 4.0")
    assert dict(weights.fetch([FILE, other], tmp_path)) == {
        FILE: "",
        other: "its licence (CC BY-NC 4.0) is yours to accept",
    }
    assert (tmp_path / "m/w.pth").read_bytes() == CONTENT
    assert network == [FILE.source]
    weights.fetch([FILE], tmp_path)
    assert len(network) == 1


def test_the_same_bytes_in_two_places_are_fetched_once(tmp_path: Path, network: list[str]) -> None:
    twins = [f for f in weights.FILES if f.path.endswith("dino_vitbase16_pretrain.pth")]
    weights.fetch(twins, tmp_path)
    assert len(twins) == 2 and len(network) == 1
    assert all((tmp_path / f.path).read_bytes() == CONTENT for f in twins)


def test_other_bytes_than_the_publishers_are_refused(tmp_path: Path, network: list[str]) -> None:
    own = replace(FILE, sha256=hashlib.sha256(b"other").hexdigest())
    ((_, why),) = weights.fetch([own], tmp_path)
    assert "its sha256 is" in why and not (tmp_path / own.path).exists()
    right = replace(FILE, sha256=hashlib.sha256(CONTENT).hexdigest()[:8])
    assert weights.fetch([right], tmp_path) == [(right, "")]


def test_without_a_network_it_says_so_and_where_to_put_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def urlopen(url: str, timeout: float) -> Any:
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    assert command.main(["weights", "--fetch", "--dimension", "scene"]) == 0
    said = capsys.readouterr().out
    assert "could not be fetched (no route to host); put it there from https://" in said
    assert "xinyu1205/recognize-anything, Apache-2.0; for scene" in said
    assert "scene                   5 of 5 files absent, 1.9 GB" in said


def test_the_table_says_what_is_ready_and_what_fetching_gets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("SRBENCH_VBENCH_ENV", str(tmp_path / "none"))
    asked = ["temporal_flickering", "motion_smoothness", "color", "temporal_style"]
    assert command.main(["weights", "--dimension", *asked]) == 0
    said = capsys.readouterr().out
    assert "temporal_flickering     ready\n" in said
    assert "motion_smoothness       1 of 1 files absent, 12 MB\n" in said
    assert "color                   4 of 4 files absent, 840 MB; detectron2 absent\n" in said
    assert "7 files are absent, 2.6 GB: --fetch gets 5 of them, 1.7 GB\n" in said
    assert "its licence is yours to accept; put it there from https://" in said  # AMT's, not for any use
    assert "put it there from VBench's environment, clip/bpe_simple_vocab" in said
    assert "setup --detectron2 detectron2" in said
