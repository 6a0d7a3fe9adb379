"""`srbench store`: what a run stands on is found, moved, checked and cleaned up."""

from __future__ import annotations

import io
import os
import tarfile
import time
from pathlib import Path

import pytest

from srbench.cli.store import main
from srbench.errors import UserError
from srbench.store.objects import STATE, VIDEO, Store, write_text
from srbench.store.records import CellRecord, RunRecord, scan, write_cell, write_json

OLD = time.time() - 7200


class Lab:
    """A run with two videos, a state that it kept, a video of another run, and rubbish."""

    def __init__(self, folder: Path) -> None:
        self.run, self.store = folder / "run", Store(folder / "store")
        self.videos = [self.put(key, VIDEO) for key in ("aa", "bb")]
        self.state, self.other = self.put("cc", STATE), self.put("dd", VIDEO)
        self.orphan = self.put("ee", VIDEO)
        self.store.key_path("ee").unlink()
        self.staging = self.store.root / "staging" / "half.webm"
        self.staging.write_text("half")
        write_json(self.run / "run.json", run_record())
        for key, path in zip(("aa", "bb"), self.videos, strict=True):
            write_cell(self.run, cell(key, path))
            write_text(self.store.known_path(key), cell(key, path).model_dump_json())
        for path in self.store.root.rglob("*"):
            os.utime(path, (OLD, OLD))

    def put(self, key: str, suffix: str) -> Path:
        def write(path: Path) -> None:
            path.write_text(f"bytes of {key}")

        return self.store.put(key, suffix, write)


def run_record() -> RunRecord:
    return RunRecord(
        experiment="e", run="r", family="f", asked=[], resolved={}, store="../store", methods=(),
        prompts=(), seeds=(), protocol="p", commit=None, dirty=None, packages={}, device="CPU", threads=1,
        started="",
    )  # fmt: skip


def cell(key: str, video: Path) -> CellRecord:
    return CellRecord(
        id=key, key=key, family="f", method=f"method_{key}", label="", method_id="m", path=[], prompt="p",
        prompt_index=0, seed=0, outcome="done", protocol="p", video=video.name.partition(".")[0],
        video_bytes=video.stat().st_size,
    )  # fmt: skip


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_du_tells_how_much_of_each_kind(lab: Lab, capsys: pytest.CaptureFixture) -> None:
    assert main(["du", str(lab.store.root)]) == 0
    told = capsys.readouterr().out
    assert "4 videos" in told and "1 states" in told and "5 objects" in told


def test_verify_names_the_cells_of_a_flipped_bit(lab: Lab, capsys: pytest.CaptureFixture) -> None:
    assert main(["verify", str(lab.run)]) == 0
    lab.videos[0].chmod(0o644)
    lab.videos[0].write_text("Bytes of aa")
    assert main(["verify", str(lab.run)]) == 1
    told = capsys.readouterr().out
    assert "method_aa, prompt 0, seed 0" in told and "method_bb" not in told
    assert (lab.store.root / "damaged" / lab.videos[0].name).exists()
    assert main(["verify", str(lab.run)]) == 1, "its file is missing until it is made again"


def test_gc_lists_and_then_removes_what_the_run_does_not_need(
    lab: Lab, capsys: pytest.CaptureFixture
) -> None:
    unneeded = {lab.other, lab.orphan, lab.staging}
    assert main(["gc", str(lab.store.root), str(lab.run)]) == 0
    assert capsys.readouterr().out.count("unused: ") == 3 and all(p.exists() for p in unneeded)
    main(["gc", str(lab.store.root), str(lab.run), "--delete"])
    assert not any(p.exists() for p in unneeded) and lab.store.get("dd") is None
    assert lab.state.exists() and [lab.store.get(k) for k in ("aa", "bb")] == lab.videos
    main(["gc", str(lab.store.root), str(lab.run), "--delete", "--states"])
    assert not lab.state.exists() and lab.store.get("aa") == lab.videos[0]


def test_gc_leaves_alone_what_a_writer_may_still_be_at(lab: Lab) -> None:
    fresh = lab.put("ff", VIDEO)  # of a run whose record comes after the video
    partial = lab.store.root / "objects" / "ab" / ".0123456789abcdef.webm"
    partial.parent.mkdir(exist_ok=True)
    partial.write_text("half")
    for path in (lab.orphan, lab.staging):
        os.utime(path)
    main(["gc", str(lab.store.root), str(lab.run), "--delete"])
    assert lab.orphan.exists() and lab.staging.exists() and partial.exists()
    assert lab.store.get("ff") == fresh


def test_gc_removes_what_killed_writers_left_everywhere(lab: Lab) -> None:
    partial = [lab.store.root / name / "ab" / ".0123456789abcdef.x" for name in ("objects", "cells", "keys")]
    for path in partial:
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
        os.utime(path, (OLD, OLD))
    (lab.store.root / ".gitignore").write_text("*")
    os.utime(lab.store.root / ".gitignore", (OLD, OLD))
    main(["gc", str(lab.store.root), str(lab.run), "--delete"])
    assert not any(p.exists() for p in partial) and (lab.store.root / ".gitignore").exists()


def test_gc_keeps_the_video_that_a_record_names_whatever_its_key_says(lab: Lab) -> None:
    key = lab.store.key_path("aa")
    write_text(key, lab.store.key_path("dd").read_text())
    os.utime(key, (OLD, OLD))
    main(["gc", str(lab.store.root), str(lab.run), "--delete"])
    assert lab.videos[0].exists()


def test_an_exported_run_can_be_brought_into_another_store(lab: Lab, tmp_path: Path) -> None:
    assert main(["export", str(lab.run), str(tmp_path / "run.tar")]) == 0
    assert main(["import", str(tmp_path / "run.tar"), str(tmp_path / "new")]) == 0
    new = Store(tmp_path / "new")
    for key in ("aa", "bb"):
        path = new.get(key)
        assert path is not None and path.read_text() == f"bytes of {key}"
        assert new.known_path(key).exists()
    assert new.get("dd") is None, "no part of the run"
    with pytest.raises(UserError, match="exists"):
        main(["export", str(lab.run), str(tmp_path / "run.tar")])


def test_what_is_still_being_written_hinders_no_command_and_is_not_exported(lab: Lab, tmp_path: Path) -> None:
    (lab.run / "cells" / ".0123456789abcdef.json").write_text('{"versi')
    run, root = str(lab.run), str(lab.store.root)
    assert main(["verify", run]) == main(["gc", root, run]) == 0
    assert main(["export", run, str(tmp_path / "run.tar")]) == 0
    with tarfile.open(tmp_path / "run.tar") as tar:
        assert not [n for n in tar.getnames() if "/." in n]


def archive(path: Path, **files: str) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


@pytest.mark.parametrize("entry", ["../victim.txt 8", "/etc/passwd 8", "ab/../../victim.txt 8", "x", ""])
def test_a_key_that_leads_out_of_the_store_is_none(lab: Lab, tmp_path: Path, entry: str) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    root = str(lab.store.root)
    with pytest.raises(UserError, match="bytes that fit their name"):
        main(["import", str(archive(tmp_path / "evil.tar", **{"keys/ee/" + "e" * 64: entry})), root])
    write_text(lab.store.key_path("e" * 64), entry)  # an older srbench took it
    assert lab.store.get("e" * 64) is None and main(["verify", str(lab.run)]) == 0
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("name", ["keys/..", "keys/aa/.lock", "cells/aa/...json", "objects/aa/aa.webm"])
def test_names_that_no_store_has_are_refused(lab: Lab, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="bytes that fit their name"):
        main(["import", str(archive(tmp_path / "evil.tar", **{name: "x"})), str(lab.store.root)])


def test_an_import_leaves_a_sound_key_and_its_record_alone(lab: Lab, tmp_path: Path) -> None:
    told = lab.store.known_path("aa").read_text()
    other = {"cells/aa/aa.json": "{}", "keys/aa/aa": f"{lab.videos[1].name} 11"}
    main(["import", str(archive(tmp_path / "other.tar", **other)), str(lab.store.root)])
    assert lab.store.get("aa") == lab.videos[0] and lab.store.known_path("aa").read_text() == told
    lab.videos[0].unlink()
    main(["import", str(tmp_path / "other.tar"), str(lab.store.root)])
    assert Store(lab.store.root).get("aa") == lab.videos[1]


def test_an_archive_cut_short_or_no_archive_is_refused(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "no.tar").write_text("no archive")
    with pytest.raises(UserError, match=r"no\.tar"):
        main(["import", str(tmp_path / "no.tar"), str(tmp_path / "new")])


def test_a_store_of_a_newer_version_is_refused_by_every_command(lab: Lab, tmp_path: Path) -> None:
    (lab.store.root / "version").write_text("99")
    root, run = str(lab.store.root), str(lab.run)
    for words in (["verify", run], ["du", root], ["gc", root, run], ["export", run, str(tmp_path / "x")]):
        with pytest.raises(UserError, match="version 99"):
            main(words)


# -- the index of a run's cells


def test_a_scan_is_the_same_with_and_without_its_index(lab: Lab) -> None:
    found = scan(lab.run)
    assert {b.id: (b.outcome, b.video) for b in found.values()} == {
        key: ("done", path.name.partition(".")[0]) for key, path in zip(("aa", "bb"), lab.videos, strict=True)
    }
    (lab.run / "cells.jsonl").unlink()
    assert scan(lab.run) == found
    assert len((lab.run / "cells.jsonl").read_text().splitlines()) == 2


def test_a_record_changed_behind_the_index_is_read_again(lab: Lab) -> None:
    write_json(
        lab.run / "cells" / "aa.json", cell("aa", lab.videos[0]).model_copy(update={"outcome": "failed"})
    )
    assert scan(lab.run)["aa"].outcome == "failed"
    (lab.run / "cells" / "bb.json").unlink()
    assert list(scan(lab.run)) == ["aa"]


def test_a_line_cut_off_by_a_kill_costs_a_read_and_nothing_else(lab: Lab) -> None:
    found, index = scan(lab.run), lab.run / "cells.jsonl"
    index.write_bytes(index.read_bytes()[:-20])
    assert scan(lab.run) == found


def test_a_damaged_record_is_told(lab: Lab) -> None:
    (lab.run / "cells" / "aa.json").write_text("{}")
    with pytest.raises(UserError, match=r"aa\.json"):
        scan(lab.run)
