"""`python -m srbench.store verify | du | gc | export | import`: look after the stored bytes."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tarfile
from collections import Counter
from pathlib import Path

from srbench import errors
from srbench.errors import UserError
from srbench.store.objects import Store, write_atomic
from srbench.store.records import read_run, read_run_record


def store_of(run: Path) -> Store:
    """The store that a run's folder points to.  Raises UserError where it is gone."""
    root = (run / read_run_record(run).store).resolve()
    if not root.is_dir():
        raise UserError(
            f"{run}: its store {root} is missing", "the store's folder", "put it back, or run again"
        )
    return Store(root)


def verify(run: Path) -> int:
    """Re-read every byte; name what is damaged, set it aside.  1 if anything was."""
    store = store_of(run)
    cells = read_run(run)[1]
    damaged = store.verify()
    for damage in damaged:
        owners = [c for c in cells if c.key in damage.keys]
        told = ", ".join(f"{c.method}, prompt {c.prompt_index}, seed {c.seed}" for c in owners)
        print(f"damaged: {damage.name} ({told or 'a state or a text'}): {damage.reason}")
    if damaged:
        print(f"{len(damaged)} set aside in {store.root / 'damaged'}; the run's command computes them again")
    else:
        print(f"{len(store.objects())} objects, all sound")
    return int(bool(damaged))


def du(root: Path) -> int:
    """How much each kind of object takes."""
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for path in Store(root).objects():
        sizes[path.suffix] += path.stat().st_size
        counts[path.suffix] += 1
    for suffix, size in sizes.most_common():
        print(f"{size / 2**20:10.1f} MiB  {counts[suffix]:7} objects  {suffix}")
    print(f"{sum(sizes.values()) / 2**20:10.1f} MiB  {sum(counts.values()):7} objects")
    return 0


def gc(root: Path, runs: list[Path], delete: bool) -> int:
    """List, or with --delete remove, videos that none of the runs has a record of.

    States and texts are kept: runs to come begin from them.
    """
    needed = [c.key for run in runs for c in read_run(run)[1]]
    unused = [p for p in Store(root).unused(needed) if p.suffix == ".webm"]
    for path in unused:
        print(f"{'removed' if delete else 'unused'}: {path.name}")
        if delete:
            path.unlink()
    print(f"{len(unused)} videos unused" + ("" if delete or not unused else "; --delete removes them"))
    return 0


def export(run: Path, out: Path) -> int:
    """One tar file: the run's records, and the objects and keys its cells stand on."""
    store = store_of(run)
    if out.exists():
        raise UserError(f"{out} exists", "a file that does not", "name another, or remove it")
    keys = store.keys()
    wanted = sorted({c.key for c in read_run(run)[1] if c.key in keys})

    def write(partial: Path) -> None:
        with tarfile.open(partial, "w") as tar:
            for path in sorted(p for p in run.rglob("*") if p.is_file() and not p.is_symlink()):
                tar.add(path, f"run/{path.relative_to(run)}")
            for key in wanted:
                tar.add(store.key_path(key), f"keys/{key[:2]}/{key}")
            for name in sorted({keys[k] for k in wanted}):
                tar.add(store.object_path(name), f"objects/{name[:2]}/{name}")

    write_atomic(out, write)
    print(f"wrote {out}: {len(wanted)} videos, {out.stat().st_size / 2**20:.1f} MiB")
    return 0


def bring_in(archive: Path, root: Path) -> int:
    """Put an exported file's objects into a store, each checked against its name."""
    store, count = Store(root), 0
    with tarfile.open(archive) as tar:
        members = {m.name: m for m in tar.getmembers() if m.isfile()}
        for name in sorted(n for n in members if n.startswith("objects/")):
            data = tar.extractfile(members[name])
            assert data is not None
            content = data.read()
            target = store.object_path(Path(name).name)
            if hashlib.sha256(content).hexdigest() != target.name.partition(".")[0]:
                raise UserError(
                    f"{archive}: {name} is damaged", "bytes that hash to their name", "export it again"
                )
            count += 1
        for name in sorted(n for n in members if n.startswith("keys/")):
            data = tar.extractfile(members[name])
            assert data is not None
            content = data.read()
            write_atomic(store.key_path(Path(name).name), lambda p, c=content: _write(p, c))  # type: ignore[misc]
    print(f"{count} objects are now in {root}")
    return 0


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    main = argparse.ArgumentParser(prog="python -m srbench.store", description=__doc__)
    commands = main.add_subparsers(dest="command", required=True)
    commands.add_parser("verify", help="re-read every byte").add_argument("run", type=Path)
    one = commands.add_parser("du", help="how much it takes")
    one.add_argument("store", type=Path, nargs="?", default=Path("results/store"))
    one = commands.add_parser("gc", help="videos that no given run needs")
    one.add_argument("store", type=Path)
    one.add_argument("runs", type=Path, nargs="+")
    one.add_argument("--delete", action="store_true")
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
            return gc(args.store, args.runs, args.delete)
        case "export":
            return export(args.run, args.out)
        case _:
            return bring_in(args.archive, args.store)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"srbench: {error}", file=sys.stderr)
        sys.exit(errors.EXIT_USER)
