"""Content-addressed files, written once.

ROOT/version                        of this layout; a newer one is refused, not guessed at
ROOT/objects/ab/<sha256>.<suffix>   the bytes; `sha256sum` verifies any of them by hand
ROOT/cells/ab/<key>.json            the record of a video, for other runs that need it
ROOT/keys/ab/<key>                  which object a key stands for; a key is a hash over all
                                    that determines the bytes
A file is written beside its target, flushed, renamed, its folder flushed, and made
read-only, so another process sees it whole or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import secrets
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from srbench.errors import UserError, cannot_write

VERSION = 1
# What an object is, by the end of its name.
VIDEO, STATE, TRACE, TEXT = ".webm", ".state.safetensors", ".trace.json", ".text.safetensors"
EXTENSION = ".extension.json"  # of a prompt, as a language model wrote it out


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes, hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_hash(folder: Path) -> str:
    """One hash for the names and bytes of all files below a folder, its prose left out.

    Bytes are read again where a file's size or times say that it was written since.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".md")
    stats = ((p, p.stat()) for p in files)
    return _hash_of(folder, tuple((p, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for p, s in stats))


@functools.lru_cache(maxsize=64)
def _hash_of(folder: Path, files: tuple[tuple[Path, int, int, int, int], ...]) -> str:
    h = hashlib.sha256()
    for path, *_ in files:
        h.update(f"{path.relative_to(folder)} {file_hash(path)}\n".encode())
    return h.hexdigest()


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


PARTIAL = re.compile(r"\.[0-9a-f]{16}(\..*)?")  # what `write_atomic` writes before it has its name
OBJECT = re.compile(r"[0-9a-f]{64}\.\w[\w.]*", re.ASCII)


def read_entry(text: str) -> tuple[str, int]:
    """What a key's entry says: its object's name and length.

    Raises ValueError for anything else; a name that could lead out of the store is none.

    >>> read_entry(f"{'0' * 64}.webm 8")[1]
    8
    """
    name, length = text.split()
    if not OBJECT.fullmatch(name):
        raise ValueError(f"no object's name: {name}")
    return name, int(length)


class OtherBytes(UserWarning):
    """What was computed again is not what it was: the device or the software is not deterministic."""


def _warned(key: str, kept: Path, name: str) -> Path:
    """The object that a key keeps; a warning where what came again is another."""
    if kept.name != name:
        warnings.warn(
            f"{kept.name[:12]}… computed again is {name[:12]}… (key {key[:12]}…): the same steps gave other "
            "bytes, so this device or software is not deterministic; the first are kept",
            OtherBytes,
            stacklevel=3,
        )
    return kept


def write_atomic(
    path: Path, write: Callable[[Path], object], mode: int = 0o444, *, once: bool = False
) -> os.stat_result:
    """`write` a file beside `path` and move it there; nothing is left behind on failure.

    Returns what the system says of the file, as it was moved.

    mode: the file's permissions; objects are read-only, since they are written once.
    once: raise FileExistsError where there is a file already.
    Raises CannotWrite where the disk is full or the folder closed.
    """
    partial = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return _write_and_move(path, partial, write, mode, _link if once else os.replace)


def _link(partial: Path, path: Path) -> None:
    """Give a file its name, unless another has it.  Raises FileExistsError."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if path.exists():
            raise FileExistsError(path) from None
        os.replace(partial, path)


def _write_and_move(
    path: Path,
    partial: Path,
    write: Callable[[Path], object],
    mode: int,
    move: Callable[[Path, Path], None],
) -> os.stat_result:
    try:
        write(partial)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        partial.chmod(mode)
        stat = partial.stat()  # now: once it has its name, another process may replace it
        move(partial, path)
        _flush_folder(path.parent)
        return stat
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """A full disk or a closed folder as a UserError, whichever library ran into it."""
    try:
        yield
    except Exception as error:
        told = cannot_write(error, path.parent)
        if told is None or isinstance(error, UserError):
            raise
        raise told from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """While inside, no other process is: for files that are read, changed and written back.

    Raises UserError where the disk knows no locks, as some network disks.
    """
    with _told(folder / ".lock"):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            raise UserError(
                f"{folder / '.lock'} cannot be locked ({error.strerror})",
                "a disk with file locks, as every local disk has them",
                "mount it with locks, or set results=… and store=… to folders of another disk",
            ) from error
        yield
    finally:
        os.close(handle)


def write_text(path: Path, text: str, mode: int = 0o444) -> os.stat_result:
    """A text file, UTF-8, by `write_atomic`."""

    def write(partial: Path) -> None:
        partial.write_text(text, "utf-8")

    return write_atomic(path, write, mode)


@dataclass(frozen=True)
class Damage:
    """An object whose bytes are not what its name says."""

    name: str
    keys: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Listing:
    """The keys of a store, and the bytes of every object by its name."""

    keys: Set[str]
    sizes: Mapping[str, int]

    def has(self, key: str, name: str, length: int | None) -> bool:
        """Whether a key is there and its object has its length (any, where that is None)."""
        size = self.sizes.get(name)
        return key in self.keys and size is not None and length in (None, size)


def _entries(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """The files of all folders ab/ below `root`, partial ones left out."""
    if not root.is_dir():
        return
    with os.scandir(root) as folders:
        for folder in [f.path for f in folders if f.is_dir()]:
            with os.scandir(folder) as files:
                yield from ((f.name, f) for f in files if not f.name.startswith("."))


class Store:
    """The objects under one root, shared by runs and processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._sound: dict[Path, tuple[int, int]] = {}
        self._is_prepared = False

    def refuse_newer(self) -> None:
        """Raises UserError where a newer srbench wrote this store."""
        file = self.root / "version"
        try:
            written = int(file.read_text("utf-8"))
        except OSError:
            return  # no store yet; one that cannot be read is found out by whoever writes
        except ValueError:
            raise UserError(
                f"{file} holds no number", f"{VERSION}, the store's version", f"write {VERSION} into it"
            ) from None
        if written > VERSION:
            raise UserError(
                f"the store {self.root} of version {written}",
                f"version {VERSION} or older, which this srbench reads",
                "use a newer srbench, or another store: store=…",
            )

    def key_path(self, key: str) -> Path:
        """Where a key's entry lies."""
        return self.root / "keys" / key[:2] / key

    def object_path(self, name: str) -> Path:
        """Where an object of this name lies."""
        return self.root / "objects" / name[:2] / name

    def known_path(self, key: str) -> Path:
        """Where it is kept what is known of a video besides its bytes: trace, times, host."""
        return self.root / "cells" / key[:2] / f"{key}.json"

    def has(self, key: str) -> bool:
        """Whether an object of the right length is there; cheap, its bytes are not read."""
        entry = self._entry(key)
        if entry is None:
            return False
        path = self.object_path(entry[0])
        return path.exists() and path.stat().st_size == entry[1]

    def _entry(self, key: str) -> tuple[str, int] | None:
        try:
            return read_entry(self.key_path(key).read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def get(self, key: str, sha256: str | None = None) -> Path | None:
        """The object that a key stands for, its bytes checked once by this process.

        sha256: what a record says of the bytes, where they must be just these.
        None where there is none; a damaged one is set aside first, so it is made again.
        """
        entry = self._entry(key)
        if entry is None or sha256 not in (None, entry[0].partition(".")[0]):
            return None
        path = self.object_path(entry[0])
        if self._is_sound(path):
            return path
        if path.exists():
            self._set_aside(path)
        return None

    def _is_sound(self, path: Path) -> bool:
        """Whether the bytes are what the name says; read again only if the file has changed."""
        if not path.exists():
            return False
        stat = path.stat()
        stamp = (stat.st_mtime_ns, stat.st_size)
        if self._sound.get(path) != stamp:
            if _damage(path) is not None:
                return False
            self._sound[path] = stamp
        return True

    def put(self, key: str, suffix: str, write: Callable[[Path], None], *, replace: bool = False) -> Path:
        """Store what `write` writes, under its own hash, and let `key` stand for it.

        A key that stands for a sound object keeps it, for records name its bytes: other bytes of
        the same key are dropped with the warning OtherBytes.  replace: not so, but the newer
        bytes count, as of a trace that has become longer.
        Returns the object that the key stands for.
        Raises CannotWrite where the disk is full or the store closed.
        """
        staging = self.root / "staging" / f"{secrets.token_hex(8)}{suffix}"
        with _told(staging):
            self._prepare()
            try:
                write(staging)
                name = f"{file_hash(staging)}{suffix}"
                if not replace and (kept := self.get(key)) is not None:
                    return _warned(key, kept, name)
                path = self.object_path(name)
                if not self._is_sound(path):
                    write_atomic(path, lambda partial: os.replace(staging, partial))
                else:  # its key is still to come, and gc spares what is young
                    with contextlib.suppress(OSError):
                        os.utime(path)
                length = path.stat().st_size
            finally:
                staging.unlink(missing_ok=True)
        entry = f"{name} {length}\n"
        if not replace and not self._key_is_new(key, entry) and (kept := self.get(key)) is not None:
            return _warned(key, kept, name)  # another process was faster
        write_text(self.key_path(key), entry)
        return path

    def _key_is_new(self, key: str, entry: str) -> bool:
        """Write a key's entry, unless there is one: of two processes the first wins."""
        path = self.key_path(key)
        try:
            write_atomic(path, lambda partial: partial.write_text(entry, "utf-8"), once=True)
        except FileExistsError:
            return False
        return True

    def _prepare(self) -> None:
        (self.root / "staging").mkdir(parents=True, exist_ok=True)
        if not self._is_prepared and not (self.root / "version").exists():
            write_text(self.root / "version", f"{VERSION}\n", mode=0o644)
        self._is_prepared = True

    def listing(self) -> Listing:
        """What is there, read from folders alone: for plans that ask for many keys at once."""
        keys = {name for name, _ in _entries(self.root / "keys")}
        sizes = {name: entry.stat().st_size for name, entry in _entries(self.root / "objects")}
        return Listing(keys, sizes)

    def _set_aside(self, path: Path) -> None:
        target = self.root / "damaged" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)

    def keys(self) -> dict[str, str]:
        """Every key and the name of its object."""
        found = {}
        for path in sorted((self.root / "keys").glob("??/*")):
            entry = None if path.name.startswith(".") else self._entry(path.name)
            if entry:
                found[path.name] = entry[0]
        return found

    def objects(self) -> list[Path]:
        """Every object's file."""
        found = (self.root / "objects").glob("??/*")
        return sorted(p for p in found if not p.name.startswith("."))

    def leftovers(self) -> list[Path]:
        """Files that a writer is at, or was when it was killed."""
        folders = (self.root / name for name in ("objects", "cells", "keys"))
        partial = [*self.root.glob(".*"), *(p for folder in folders for p in folder.glob("??/.*"))]
        own = (p for p in partial if PARTIAL.fullmatch(p.name))
        return sorted([*(self.root / "staging").glob("*"), *own])

    def verify(self) -> list[Damage]:
        """Re-read all bytes; set damaged objects aside and name them and their keys."""
        by_name: dict[str, list[str]] = {}
        for key, name in self.keys().items():
            by_name.setdefault(name, []).append(key)
        found = []
        for name in sorted({p.name for p in self.objects()} | set(by_name)):
            path = self.object_path(name)
            reason = _damage(path)
            if reason is not None:
                found.append(Damage(name, tuple(by_name.get(name, ())), reason))
                if path.exists():
                    self._set_aside(path)
        return found

    def unused(self, needed: Iterable[str]) -> list[Path]:
        """Objects that none of the keys `needed` stands for."""
        keys = self.keys()
        kept = {keys[k] for k in needed if k in keys}
        return [p for p in self.objects() if p.name not in kept]


def _damage(path: Path) -> str | None:
    """Why a file is not what its name says; None if it is."""
    if not path.exists():
        return "its file is missing"
    actual = file_hash(path)
    expected = path.name.partition(".")[0]
    return None if actual == expected else f"its bytes hash to {actual[:12]}…, {path.stat().st_size} bytes"
