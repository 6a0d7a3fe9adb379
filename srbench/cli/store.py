"""`srbench store verify | du | gc | export | import`: look after the stored bytes."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import tarfile
import time
from collections import Counter
from collections.abc import Set
from pathlib import Path

from srbench import errors
from srbench.errors import UserError
from srbench.store.objects import (
    EXTENSION,
    OBJECT,
    STATE,
    TEXT,
    TRACE,
    VIDEO,
    Store,
    read_entry,
    write_atomic,
)
from srbench.store.records import read_run, read_run_record


def store_of(run: Path) -> Store:
    """The store that a run's folder points to.  Raises UserError where it is gone."""
    root = (run / read_run_record(run).store).resolve()
    if not root.is_dir():
        raise UserError(
            f"{run}: its store {root} is missing", "the store's folder", "put it back, or run again"
        )
    return opened(root)


def verify(run: Path) -> int:
    """Re-read every byte; name what is damaged, set it aside.  1 if anything was."""
    store = store_of(run)
    cells = read_run(run)[1]
    damaged = store.verify()
    for damage in damaged:
        owners = [c for c in cells if c.key in damage.keys]
        told = ", ".join(f"{c.method}, prompt {c.prompt_index}, seed {c.seed}" for c in owners)
        whose = told or f"one of the {kind(damage.name)}, of no cell of this run"
        print(f"damaged: {damage.name} ({whose}): {damage.reason}")
    if damaged:
        print(f"{len(damaged)} set aside in {store.root / 'damaged'}; the run's command computes them again")
    else:
        print(f"{len(store.objects())} objects, all sound")
    return int(bool(damaged))


KINDS = {VIDEO: "videos", STATE: "states", TRACE: "traces", TEXT: "texts", EXTENSION: "extended prompts"}


def kind(name: str) -> str:
    """What an object is, for a reader.

    >>> kind("ab12.state.safetensors"), kind("ab12.odd")
    ('states', '.odd')
    """
    suffix = name[name.find(".") :]
    return KINDS.get(suffix, suffix)


def du(root: Path) -> int:
    """How much each kind of object takes."""
    store = opened(root)
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for path in store.objects():
        sizes[kind(path.name)] += path.stat().st_size
        counts[kind(path.name)] += 1
    for what, size in sizes.most_common():
        print(f"{size / 2**20:10.1f} MiB  {counts[what]:7} {what}")
    print(f"{sum(sizes.values()) / 2**20:10.1f} MiB  {sum(counts.values()):7} objects")
    aside = list((root / "damaged").glob("*"))
    if aside:
        print(
            f"{sum(p.stat().st_size for p in aside) / 2**20:10.1f} MiB  {len(aside):7} set aside in damaged/"
        )
    return 0


def opened(root: Path) -> Store:
    """A store that this version reads.  Raises UserError."""
    store = Store(root)
    store.refuse_newer()
    return store


# A file younger than this may be of a run that is going on: its record, or its key, is written after it.
YOUNG = 3600.0


def gc(root: Path, runs: list[Path], delete: bool, states: bool) -> int:
    """List, or with --delete remove, what none of the runs needs.

    That is videos that no run has a record of, objects that no key stands for, keys whose
    object is gone and leftovers of writers that were killed; with --states also the kept
    states and their traces, which only runs to come would begin from.  Texts stay, and
    whatever is younger than an hour.
    """
    store = opened(root)
    keys = store.keys()  # before the runs: what is recorded meanwhile is of no key that is looked at
    cells = [c for run in runs for c in read_run(run)[1]]
    needed, named = {c.key for c in cells}, {f"{c.video}{VIDEO}" for c in cells}
    before = time.time() - YOUNG

    def is_old(path: Path) -> bool:
        try:
            return path.stat().st_mtime < before
        except FileNotFoundError:  # its writer was quicker
            return False

    drop = {k for k, name in keys.items() if _unneeded(k, name, needed, states)}
    drop |= {k for k, name in keys.items() if not store.object_path(name).exists()}
    drop = {k for k in drop if is_old(store.key_path(k))}
    kept = {name for k, name in keys.items() if k not in drop} | named
    unused = [p for p in store.objects() if p.name not in kept]
    unused = [p for p in [*unused, *store.leftovers()] if is_old(p)]
    size = sum(p.stat().st_size for p in unused)
    for path in unused:
        print(f"{'removed' if delete else 'unused'}: {path.name} ({kind(path.name.lstrip('.'))})")
    if delete:
        # keys first: a key without its object would promise what is not there
        for path in [*map(store.key_path, drop), *(store.known_path(k) for k in drop), *unused]:
            path.unlink(missing_ok=True)
    hint = "" if delete or not unused else "; --delete removes them"
    print(f"{len(unused)} files, {size / 2**20:.1f} MiB{hint}")
    return 0


def _unneeded(key: str, name: str, needed: Set[str], states: bool) -> bool:
    if name.endswith(VIDEO):
        return key not in needed
    return states and name.endswith((STATE, TRACE))


def export(run: Path, out: Path) -> int:
    """One tar file: the run's records, and the objects and keys its cells stand on."""
    store = store_of(run)
    if out.exists():
        raise UserError(f"{out} exists", "a file that does not", "name another, or remove it")
    keys = store.keys()
    wanted = sorted({c.key for c in read_run(run)[1] if c.key in keys})

    def write(partial: Path) -> None:
        with tarfile.open(partial, "w") as tar:
            for path in _whole_files(run):
                tar.add(path, f"run/{path.relative_to(run)}")
            for key in wanted:
                tar.add(store.key_path(key), f"keys/{key[:2]}/{key}")
                if store.known_path(key).exists():
                    tar.add(store.known_path(key), f"cells/{key[:2]}/{key}.json")
            for name in sorted({keys[k] for k in wanted}):
                tar.add(store.object_path(name), f"objects/{name[:2]}/{name}")

    write_atomic(out, write)
    print(f"wrote {out}: {len(wanted)} cells, {out.stat().st_size / 2**20:.1f} MiB")
    return 0


def _whole_files(run: Path) -> list[Path]:
    """A run's files; links point into the store, and hidden files are locks or still being written."""
    found = (p for p in run.rglob("*") if not p.name.startswith("."))
    return sorted(p for p in found if p.is_file() and not p.is_symlink())


def bring_in(archive: Path, root: Path) -> int:
    """Put an exported file's objects into a store, each checked against its name.

    What a key stands for in the store stays so as long as its object is sound.
    """
    store, count = opened(root), 0
    try:
        opened_tar = tarfile.open(archive)
    except (tarfile.TarError, OSError) as error:
        raise UserError(
            f"{archive}: {error}", "a file that `export` wrote", "check the path, or export it again"
        ) from None
    with opened_tar as tar:
        members = {m.name: m for m in tar.getmembers() if m.isfile()}
        # objects before the keys that promise them
        for folder in ("objects/", "cells/", "keys/"):
            for name in sorted(n for n in members if n.startswith(folder)):
                data = tar.extractfile(members[name])
                assert data is not None
                count += _bring_one(archive, store, Path(name), data.read()) and folder == "objects/"
    print(f"{count} objects are now in {root}")
    return 0


def _bring_one(archive: Path, store: Store, name: Path, content: bytes) -> bool:
    """One file of an archive, by its last name alone; whether the store takes it.

    Neither a path in it nor the name that a key gives may lead out of the store.
    Raises UserError for what `export` would not write.
    """
    key = name.stem if name.parts[0] == "cells" else name.name
    match name.parts[0]:
        case "objects":
            target = store.object_path(name.name)
            digest = hashlib.sha256(content).hexdigest()
            is_whole = bool(OBJECT.fullmatch(name.name)) and digest == name.name.partition(".")[0]
        case "cells":
            target, is_whole = store.known_path(key), bool(KEY.fullmatch(key))
        case _:
            target, is_whole = store.key_path(key), bool(KEY.fullmatch(key)) and _is_entry(content)
    if not is_whole:
        raise UserError(f"{archive}: {name} is damaged", "bytes that fit their name", "export it again")
    if target.exists() and store.get(key) is not None:
        return False
    write_atomic(target, lambda partial: _write(partial, content))
    return True


KEY = re.compile(r"[0-9a-f]{2,64}")


def _is_entry(content: bytes) -> bool:
    try:
        read_entry(content.decode())
    except ValueError:
        return False
    return True


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    main = errors.Parser(prog="srbench store", description=__doc__)
    commands = main.add_subparsers(dest="command", required=True)
    commands.add_parser("verify", help="re-read every byte").add_argument("run", type=Path)
    one = commands.add_parser("du", help="how much it takes")
    one.add_argument("store", type=Path, nargs="?", default=Path("results/store"))
    one = commands.add_parser("gc", help="what no given run needs")
    one.add_argument("store", type=Path)
    one.add_argument("runs", type=Path, nargs="+")
    one.add_argument("--delete", action="store_true", help="remove it; else it is only listed")
    one.add_argument(
        "--states", action="store_true", help="kept states too: runs to come do their steps again"
    )
    one = commands.add_parser("export", help="a run and its videos as one file")
    one.add_argument("run", type=Path)
    one.add_argument("out", type=Path)
    one = commands.add_parser("import", help="bring an exported file's videos into a store")
    one.add_argument("archive", type=Path)
    one.add_argument("store", type=Path, nargs="?", default=Path("results/store"))
    return main


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = parser().parse_args(arguments)
    for name in ("run", "archive", "store"):
        path = getattr(args, name, None)
        if path is not None and not path.exists() and not (args.command == "import" and name == "store"):
            raise UserError(f"{path}", f"an existing {name}", f"check the path; here: {os.getcwd()}")
    match args.command:
        case "verify":
            return verify(args.run)
        case "du":
            return du(args.store)
        case "gc":
            return gc(args.store, args.runs, args.delete, args.states)
        case "export":
            return export(args.run, args.out)
        case _:
            return bring_in(args.archive, args.store)


if __name__ == "__main__":
    errors.finish(main)
