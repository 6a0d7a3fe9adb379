"""Objects are named by their bytes, written whole or not at all, and never changed."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from srbench.errors import UserError
from srbench.store.objects import OtherBytes, Store, file_hash, folder_hash, locked, write_atomic


def writes(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def files(root: Path) -> set[str]:
    """Every file below a folder, hidden and partial ones too."""
    return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_an_object_is_named_by_the_sha256_of_its_bytes(store: Store) -> None:
    path = store.put("k1", ".bin", writes(b"abc"))
    name = hashlib.sha256(b"abc").hexdigest()
    assert path == store.root / "objects" / name[:2] / f"{name}.bin"
    assert path.read_bytes() == b"abc" and file_hash(path) == name
    assert store.get("k1") == path


def test_two_keys_of_the_same_bytes_share_one_object(store: Store) -> None:
    assert store.put("aa", ".bin", writes(b"abc")) == store.put("bb", ".bin", writes(b"abc"))
    assert store.get("aa") == store.get("bb")
    assert len(files(store.root / "objects")) == 1
    assert store.put("cc", ".bin", writes(b"abd")) != store.get("aa")


def test_stored_files_are_read_only_and_nothing_else_is_left(store: Store) -> None:
    path = store.put("aa", ".bin", writes(b"abc"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert files(store.root) == {"version", str(path.relative_to(store.root)), "keys/aa/aa"}


def test_a_key_nobody_put_gives_none(store: Store) -> None:
    assert store.get("nothing") is None


def test_a_missing_object_gives_none_and_can_be_put_again(store: Store) -> None:
    path = store.put("aa", ".bin", writes(b"abc"))
    path.unlink()
    assert store.get("aa") is None
    assert store.put("aa", ".bin", writes(b"abc")) == path == store.get("aa")


def test_a_truncated_object_gives_none_and_is_replaced(store: Store) -> None:
    """A disk that was full must not poison what is computed again."""
    path = store.put("aa", ".bin", writes(b"abcdef"))
    path.chmod(0o644)
    os.truncate(path, 3)
    assert store.get("aa") is None
    store.put("aa", ".bin", writes(b"abcdef"))
    assert store.get("aa") == path and path.read_bytes() == b"abcdef"


def rot(path: Path) -> None:
    """Change a byte and keep the length, as a bad disk does."""
    path.chmod(0o644)
    path.write_bytes(b"?" + path.read_bytes()[1:])


def test_a_process_that_comes_later_finds_a_changed_byte_and_sets_the_file_aside(store: Store) -> None:
    path = store.put("aa", ".bin", writes(b"abc"))
    rot(path)
    later = Store(store.root)
    assert later.get("aa") is None
    assert (store.root / "damaged" / path.name).read_bytes() == b"?bc"
    assert later.put("aa", ".bin", writes(b"abc")).read_bytes() == b"abc"
    assert later.get("aa") == path


def test_verify_reads_all_bytes_again_and_names_the_keys_of_what_is_damaged(store: Store) -> None:
    whole, bad = store.put("aa", ".bin", writes(b"abc")), store.put("bb", ".bin", writes(b"xyz"))
    assert store.put("cc", ".bin", writes(b"xyz")) == bad
    assert store.verify() == []
    rot(bad)
    (damage,) = store.verify()
    assert (damage.name, damage.keys) == (bad.name, ("bb", "cc"))
    assert store.get("bb") is None and store.get("aa") == whole


def test_unused_objects_are_those_that_no_needed_key_stands_for(store: Store) -> None:
    kept, other = store.put("aa", ".bin", writes(b"abc")), store.put("bb", ".bin", writes(b"xyz"))
    assert store.unused(["aa", "no such key"]) == [other]
    assert store.unused(["aa", "bb"]) == [] and kept.exists()


def test_a_key_keeps_its_bytes_and_other_ones_are_told_of(store: Store) -> None:
    first = store.put("aa", ".bin", writes(b"abc"))
    with pytest.warns(OtherBytes, match="not deterministic"):
        assert store.put("aa", ".bin", writes(b"xyz")) == first
    assert store.get("aa") == first and len(store.objects()) == 1
    assert store.get("aa", first.stem) == first and store.get("aa", "0" * 64) is None


def test_of_two_processes_with_other_bytes_the_first_keeps_the_key(store: Store) -> None:
    found: list[Path] = []

    class Slow(Store):
        """Another process writes the key once this one has seen that there is none."""

        def _is_sound(self, path: Path) -> bool:
            if not found:
                found.append(store.put("aa", ".bin", writes(b"abc")))
            return super()._is_sound(path)

    with pytest.warns(OtherBytes):
        assert Slow(store.root).put("aa", ".bin", writes(b"xyz")) == found[0]
    assert store.get("aa") == found[0]


def test_what_may_be_replaced_is(store: Store) -> None:
    first = store.put("aa", ".bin", writes(b"abc"))
    second = store.put("aa", ".bin", writes(b"xyz"), replace=True)
    assert store.get("aa") == second and first.exists()


class Interrupted(Exception):
    pass


def half(path: Path) -> None:
    """A writer that is cut off after a few bytes."""
    path.write_bytes(b"ab")
    raise Interrupted


def test_a_writer_that_fails_leaves_nothing_behind(store: Store) -> None:
    with pytest.raises(Interrupted):
        store.put("aa", ".bin", half)
    assert files(store.root) == {"version"}
    assert store.get("aa") is None


def test_a_writer_that_fails_leaves_the_earlier_file_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "file.bin"
    write_atomic(target, writes(b"old"))
    with pytest.raises(Interrupted):
        write_atomic(target, half)
    assert target.read_bytes() == b"old"
    assert files(tmp_path) == {"deep/er/file.bin"}
    write_atomic(target, writes(b"new"))  # read-only does not stop a whole new file
    assert target.read_bytes() == b"new"


PUT = """
import sys, time
from pathlib import Path
from srbench.store.objects import Store

store, start = Store(Path(sys.argv[1])), float(sys.argv[2])

def write(path):
    with open(path, "wb") as file:
        for _ in range(8):
            file.write(b"x" * 4096)
            time.sleep(0.002)

time.sleep(max(0, start - time.time()))
for i in range(20):
    path = store.put(f"{i:02}", ".bin", write)
    assert store.get(f"{i:02}") == path and path.stat().st_size == 8 * 4096
"""


def test_two_processes_may_put_the_same_key_at_once(store: Store) -> None:
    """Both write, both find a whole object at every moment, and one is kept."""
    import time

    start = str(time.time() + 0.7)
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PUT, str(store.root), start], stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in both:
        _, told = process.communicate(timeout=600)
        assert process.returncode == 0, told
    name = hashlib.sha256(b"x" * 8 * 4096).hexdigest()
    assert files(store.root) == {
        "version",
        f"objects/{name[:2]}/{name}.bin",
        *(f"keys/{i:02}/{i:02}" for i in range(20)),
    }


def test_a_folder_hash_sees_names_and_bytes_and_no_order(tmp_path: Path) -> None:
    def folder(name: str, **content: str) -> Path:
        (tmp_path / name / "sub").mkdir(parents=True)
        for file, text in content.items():
            (tmp_path / name / "sub" / file).write_text(text)
        return tmp_path / name

    same = folder_hash(folder("a", x="1", y="2")), folder_hash(folder("b", y="2", x="1"))
    assert same[0] == same[1]
    assert len({same[0], folder_hash(folder("c", x="2", y="1")), folder_hash(folder("d", x="1"))}) == 3


def test_a_folder_that_was_written_again_has_another_hash_in_the_same_process(tmp_path: Path) -> None:
    """As where a checkpoint is trained on while a notebook stays open: same names, same lengths."""
    (tmp_path / "weights").write_text("before")
    before = folder_hash(tmp_path)
    assert folder_hash(tmp_path) == before
    (tmp_path / "new").write_text("after!")
    (tmp_path / "new").replace(tmp_path / "weights")
    after = folder_hash(tmp_path)
    assert after != before and after == folder_hash(tmp_path)


def test_a_disk_without_locks_is_a_mistake_to_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match=r"cannot be locked \(No locks available\)"), locked(tmp_path):
        pass
