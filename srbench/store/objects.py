"""Content-addressed files, written once.

ROOT/objects/ab/<sha256>.<suffix>   the bytes; `sha256sum` verifies any of them by hand
ROOT/keys/ab/<key>                  which object a key stands for; a key is a hash over all
                                    that determines the bytes
A file is written beside its target, flushed, renamed, its folder flushed, and made
read-only, so another process sees it whole or not at all.
"""

from __future__ import annotations

import functools
import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes, hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.lru_cache(maxsize=64)
def folder_hash(folder: Path) -> str:
    """One hash for the names and bytes of all files below a folder."""
    h = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        h.update(f"{path.relative_to(folder)} {file_hash(path)}\n".encode())
    return h.hexdigest()


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """`write` a file beside `path` and move it there; nothing is left behind on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        write(partial)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        partial.chmod(0o444)
        os.replace(partial, path)
        _flush_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


class Store:
    """The objects under one root, shared by runs and processes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def _key_path(self, key: str) -> Path:
        return self.root / "keys" / key[:2] / key

    def get(self, key: str) -> Path | None:
        """The object that a key stands for, or None where there is none of the right length."""
        try:
            name, length = self._key_path(key).read_text().split()
        except FileNotFoundError:
            return None
        path = self.root / "objects" / name[:2] / name
        return path if path.exists() and path.stat().st_size == int(length) else None

    def put(self, key: str, suffix: str, write: Callable[[Path], None]) -> Path:
        """Store what `write` writes, under its own hash, and let `key` stand for it."""
        staging = self.root / "staging" / f"{secrets.token_hex(8)}{suffix}"
        staging.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(staging)
            name = f"{file_hash(staging)}{suffix}"
            path = self.root / "objects" / name[:2] / name
            if not path.exists() or path.stat().st_size != staging.stat().st_size:
                write_atomic(path, lambda partial: os.replace(staging, partial))
            length = path.stat().st_size
        finally:
            staging.unlink(missing_ok=True)
        write_atomic(self._key_path(key), lambda p: _write_text(p, f"{name} {length}\n"))
        return path


def _write_text(path: Path, text: str) -> None:
    path.write_text(text)
