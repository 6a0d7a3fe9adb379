"""The same files, written here or beside; what fails beside is raised here."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from multiprocessing.connection import Connection

import pytest

from srbench.analysis import aside, table
from srbench.analysis.aside import Aside
from srbench.report import page

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.mark.parametrize("beside", [True, False])
def test_every_part_is_done_on_leaving(tmp_path, beside):
    with Aside(lambda part: (tmp_path / str(part)).write_text(str(os.getpid())) and None, 3, beside):
        pass
    writers = [(tmp_path / str(part)).read_text() for part in range(3)]
    assert len(set(writers)) == (3 if beside else 1)
    assert (str(os.getpid()) in writers) != beside


def test_what_fails_beside_is_done_again_and_raised_here(tmp_path):
    def work(part):
        (tmp_path / f"{part}-{os.getpid()}").touch()
        raise ValueError(f"part {part}")

    with pytest.raises(ValueError, match="part 0"), Aside(work, 2, True):
        pass
    assert len(list(tmp_path.iterdir())) == 2  # part 0, there and here


def test_an_error_inside_is_the_one_that_is_raised(tmp_path):
    with pytest.raises(KeyError), Aside(lambda part: (tmp_path / str(part)).touch(), 2, True):
        raise KeyError


@pytest.mark.parametrize("beside", [True, False])
def test_every_item_is_worked_on_once_in_either_process(beside):
    def make():
        return lambda item: (os.getpid(), item * item, b"x" * 200_000)  # more than a pipe holds

    found = dict(aside.mapped(make, range(200), beside))
    assert [found[i][1] for i in range(200)] == [i * i for i in range(200)]
    workers = {pid for pid, *_ in found.values()}
    assert len(workers) <= 2 if beside else workers == {os.getpid()}


def test_what_a_process_beside_leaves_is_done_here():
    here = os.getpid()

    def make():
        def work(item):
            if os.getpid() != here and item > 3:
                os._exit(1)  # as a process that was killed
            return item

        return work

    assert dict(aside.mapped(make, range(50), True)) == {i: i for i in range(50)}


def test_a_process_that_is_killed_in_the_middle_of_a_result_leaves_it_to_be_done_here(monkeypatch):
    here = os.getpid()

    class Torn(Connection):
        def send(self, obj):
            os.write(self.fileno(), struct.pack("!i", 1000) + b"the beginning of a thousand bytes")
            os._exit(9)

    def make():
        def work(item):
            if os.getpid() == here:
                time.sleep(0.05)  # so that the other takes some
            return item

        return work

    monkeypatch.setattr(aside, "Connection", Torn)
    assert dict(aside.mapped(make, range(20), True)) == {i: i for i in range(20)}


def test_what_fails_in_either_process_is_raised_here():
    def make():
        def work(item):
            if item == 7:
                raise ValueError(f"item {item}")
            return item

        return work

    with pytest.raises(ValueError, match="item 7"):
        dict(aside.mapped(make, range(20), True))


needs_two = pytest.mark.skipif(not aside.is_worthwhile(10**9), reason="needs Linux and two cores")


@needs_two
def test_a_pages_shards_are_the_same_bytes_either_way(make, tmp_path, monkeypatch):
    run, cells = make.run(prompts=tuple(f"prompt {p}" for p in range(5)), seeds=(0, 1)), make.cells(5)
    tables, found = table.make(run, cells), []
    for many in (10**9, 1):
        monkeypatch.setattr(aside, "MANY", many)
        with page.shards(tmp_path, run, cells, tables, parts=2):
            pass
        files = sorted((tmp_path / "report" / "data").iterdir())
        found.append({f.name: f.read_bytes() for f in files})
    assert found[0] == found[1] and len(found[0]) == 5


@pytest.mark.parametrize("small", [1, 8])
def test_all_is_done_here_where_the_systems_pipes_are_small(monkeypatch, small):
    """Unprivileged users with many pipes get pipes of one page; the places of a large run need more."""
    real = os.pipe

    def narrow():
        read, write = real()
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, small * 4096)
        return read, write

    monkeypatch.setattr(os, "pipe", narrow)
    monkeypatch.setattr(aside, "_widen", lambda pipe, size: None)
    items = range(40_000)
    found = dict(aside.mapped(lambda: lambda item: item + 1, items, True))
    assert found == {i: i + 1 for i in items}


def test_a_queue_holds_more_places_than_a_pipe_of_the_usual_size():
    queue = aside._queue(20_000)
    assert queue is not None
    os.close(queue)
