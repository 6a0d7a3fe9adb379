"""One (prompt, seed): walk, decode, store, score.  Knows nothing of where it runs."""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
import platform
import secrets
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from srbench import decoding, video
from srbench.config.experiment import Denoiser, Experiment, Method, digest
from srbench.config.fingerprint import ground, new_job, software
from srbench.config.registry import identity, source
from srbench.errors import CannotWrite, UserError
from srbench.families._clock import begin_peak, peak_bytes, timed
from srbench.families.base import Encoded, Sampler, State, Text
from srbench.metrics.base import CHUNK
from srbench.planning.plan import Keys, Unit, existing_cell, stored_cell
from srbench.runtime.scoring import merged, score_all
from srbench.sampling.memory import StoredMemory
from srbench.sampling.paths import as_walked
from srbench.sampling.walk import Arrival, Branch, Failure, outcome, roots, run_segment, walk
from srbench.store.objects import TEXT, VIDEO, Store, locked, write_text
from srbench.store.records import (
    CellRecord,
    Stage,
    TextTimes,
    cell_path,
    link_name,
    read_cell,
    read_text_times,
    write_cell,
    write_json,
)


@dataclass(frozen=True)
class Event:
    """What a watcher is told: `kind` is unit, cells or step."""

    kind: str
    amount: int = 1
    failed: int = 0


Watch = Callable[[Event], None]


class Damaged(Exception):
    """A video whose bytes changed after it was found sound; it has been set aside."""


class Runner:
    """Runs units of one experiment into one run folder and one store."""

    def __init__(
        self, experiment: Experiment, run: Path, store: Store, threads: int, job: str | None = None
    ) -> None:
        """job: the id that all processes of one command share; a new one where None."""
        decoding.require()
        torch.set_num_threads(threads)
        self.job = job or new_job()
        self.experiment, self.run, self.store = experiment, run, store
        self.ground = ground(threads, experiment.family.device)
        self.keys = Keys(experiment, self.ground)
        self.protocol = self.keys.protocol

    @functools.cached_property
    def sampler(self) -> Sampler:
        """The family's models; a unit with nothing to compute never asks for them."""
        return self.experiment.family.open()

    # -- text first

    def texts(self, given: Sequence[str]) -> list[str]:
        """Every text that units and methods need: what the model is given, then negative prompts."""
        negatives = [self.negative(s.denoiser) for m in self.experiment.methods for s in m.segments]
        return list(dict.fromkeys([*given, *negatives]))

    def negative(self, denoiser: Denoiser) -> str:
        own = denoiser.negative_prompt
        return self.experiment.family.negative_prompt if own is None else own

    def _text_key(self, text: str) -> str:
        family = self.experiment.family
        weights = family.weights_identity()["components"]
        # a family of one's own may encode as it likes, by any of its settings
        own = family.kind if source(type(family)) is None else family.essence()
        named = [own, weights, family.max_sequence_length, family.dtype, self.ground]
        return digest(["text", text, *named], 64)

    def encode(self, given: Sequence[str]) -> None:
        """Encode and store what is not stored yet; the encoder is unloaded afterwards."""
        missing = [t for t in self.texts(given) if self.store.get(self._text_key(t)) is None]
        if not missing:
            return
        encoded = self._encode(missing)
        for text, e in encoded.items():
            tensors = {"embedding": e.embedding.cpu().contiguous()}
            self.store.put(self._text_key(text), TEXT, functools.partial(save_file, tensors))
        with locked(self.run):
            there = self._text_times
            seconds = there.seconds | {text: e.seconds for text, e in encoded.items()}
            jobs = there.jobs | dict.fromkeys(encoded, self.job)
            write_json(self.run / "texts.json", TextTimes(seconds=seconds, jobs=jobs))

    def _encode(self, texts: Sequence[str]) -> Mapping[str, Encoded]:
        """Without texts there is no cell at all, so a family that cannot encode ends the run."""
        try:
            return self.sampler.encode(texts)
        except (OSError, ValueError) as error:  # how a hub says that there is no such model
            raise UserError(
                f"family {self.experiment.family.name}: {error}",
                "a text encoder that loads",
                "check family.components, and that the hub can be reached or the folder is whole",
            ) from error

    @property
    def _text_times(self) -> TextTimes:
        path = self.run / "texts.json"
        return read_text_times(path) if path.exists() else TextTimes(seconds={})

    def _text(self, given: str, denoiser: Denoiser) -> Text:
        def load(text: str) -> torch.Tensor:
            path = self.store.get(self._text_key(text))
            assert path is not None, "encode() comes first"
            return load_file(path)["embedding"].to(self.sampler.device)

        return Text(load(given), load(self.negative(denoiser)))

    # -- one unit

    def unit(self, unit: Unit, watch: Watch = lambda event: None) -> None:
        """Compute, store and score what is missing of one (prompt, seed)."""
        cells = self._sound(unit, watch)
        reference = _reference(cells)
        cells = [self._write(cell, reference) for cell in cells]
        watch(Event("unit", failed=sum(c.outcome == "failed" for c in cells)))

    def _sound(self, unit: Unit, watch: Watch) -> list[CellRecord]:
        """The unit's cells, scored; videos that are found damaged on the way are made again."""
        for _ in range(3):
            try:
                return self._score(self._compute(unit, watch))
            except Damaged as error:
                damage = error
        raise UserError(
            f"{damage}, three times over", "a disk that gives back what was written", "check the disk"
        )

    def _compute(self, unit: Unit, watch: Watch) -> list[CellRecord]:
        methods = self.experiment.methods
        cells: dict[str, CellRecord] = {}
        # a partner's noise comes last: by then its own unit may have made that video
        for seed in sorted({unit.noise_seed(m) for m in methods}, key=unit.noise.__ne__):
            cells |= self._videos([m for m in methods if unit.noise_seed(m) == seed], unit, watch)
        return [cells[m.id] for m in methods if m.id in cells]

    def _videos(self, methods: Sequence[Method], unit: Unit, watch: Watch) -> dict[str, CellRecord]:
        """The cells of methods that start from the same noise; what is missing is computed."""
        found = {m.id: self._existing(m, unit) or self._skipped(m, unit) for m in methods}
        todo = [m for m in methods if found[m.id] is None and not m.lacking]
        cells = {i: c for i, c in found.items() if c is not None}
        for cell in self._generate(todo, unit, watch) if todo else ():
            cells[cell.method_id] = self._keep(cell)
        return cells

    def _skipped(self, method: Method, unit: Unit) -> CellRecord | None:
        """The cell of a method that this machine lacks something for."""
        if not method.lacking:
            return None
        return self._blank(method, unit).model_copy(update={"outcome": "skipped", "reason": method.lacking})

    def _existing(self, method: Method, unit: Unit) -> CellRecord | None:
        cell = self.keys.cell(method, unit)
        own = existing_cell(self.run, self.store, cell, self.experiment.retry_failed)
        stored = stored_cell(self.store, self.keys.video(method, unit))
        return self._adopt(own, method, unit) or self._adopt(stored, method, unit)

    def _adopt(self, cell: CellRecord | None, method: Method, unit: Unit) -> CellRecord | None:
        """A cell that this or another run computed, by the names used here; None if it is damaged."""
        if cell is None:
            return None
        path = self.store.get(cell.key, cell.video)
        if cell.outcome == "done" and path is None:
            return None
        if path is not None:
            self._link(path, method, unit)
        names = self._blank(method, unit)
        return cell.model_copy(
            update={
                name: getattr(names, name)
                for name in (
                    # the protocol too: another run's other small model is no matter of this video
                    *("id", "family", "method", "label", "method_id", "is_reference", "protocol"),
                    *("prompt", "prompt_index", "text", "seed", "noise_seed", "computes"),
                )
            }
        )

    def _generate(self, methods: Sequence[Method], unit: Unit, watch: Watch) -> Iterator[CellRecord]:
        """Walk the methods and turn every arrival and failure into cells."""
        (seed,) = {unit.noise_seed(m) for m in methods}
        for end in walk(
            self.sampler,
            lambda denoiser: self._text(unit.text, denoiser),
            [self._path(m) for m in methods],
            functools.partial(self.sampler.start, seed),
            lambda branch: watch(Event("step")),
            self._memory(unit.text, seed),
        ):
            yield from self._cells(end, unit)

    def _cells(self, end: Arrival | Failure, unit: Unit) -> list[CellRecord]:
        by_name = {m.name: m for m in self.experiment.methods}
        methods = [by_name[m.name] for m in end.methods]
        if isinstance(end, Arrival):
            return self._arrive_or_fail(end, methods, unit)
        return self._fail(end, methods, unit)

    def _keep(self, cell: CellRecord) -> CellRecord:
        """Record a cell at once: a kill loses no arrival."""
        if cell.outcome == "done":
            write_json(self.store.known_path(cell.key), cell)
        return self._write(cell)

    def _write(self, cell: CellRecord, reference: CellRecord | None = None) -> CellRecord:
        """Write a cell's record, and return it with what others wrote there meanwhile.

        A video that another job finished is neither skipped nor failed, whatever became of it
        here; where it is gone from the store, it is still not skipped: its scores stay true.
        """
        path = cell_path(self.run, cell.id)
        with locked(self.run):
            there = read_cell(path) if path.exists() else None
            if there is not None and there.outcome == "done":
                if cell.outcome == "skipped" or (cell.outcome == "failed" and self.store.has(there.key)):
                    return there
            cell = merged(cell, there, reference)
            write_cell(self.run, cell)
        return cell

    # -- one method alone, for its times

    def load(self, methods: Sequence[Method], unit: Unit) -> None:
        """Load what methods need, by decoding noise once too, so that no walk's times hold that.

        What cannot be loaded is left to the walk, which fails with the reason.
        """
        for denoiser in dict.fromkeys(s.denoiser for m in methods for s in m.segments):
            bare = replace(denoiser, accelerators=(), attention=None)
            with contextlib.suppress(Exception), self.sampler.attach(bare, 1):  # which asks whether it fits
                self.sampler.model(bare.model, bare.dtype, bare.weights)
        for method in methods[:1]:
            with contextlib.suppress(Exception):
                noise = self.sampler.start(unit.noise_seed(method), method.steps, method.sampler)
                self.sampler.decode(noise)

    def alone(self, method: Method, unit: Unit) -> CellRecord:
        """A method's walk with nothing kept of earlier ones, as a cell without a video.

        Its stages are the whole walk's seconds (`denoise`), `hand_over` and `decode`.  The
        text must be stored.  Raises what the walk fails with.
        """
        device = self.sampler.device
        with timed(device) as whole:
            (end,) = walk(
                self.sampler,
                lambda denoiser: self._text(unit.text, denoiser),
                [self._path(method)],
                functools.partial(self.sampler.start, unit.noise_seed(method)),
            )
        if isinstance(end, Failure):
            raise end.error
        with timed(device) as decoding:
            self._decode(end.branch.state)
        stages = [Stage(name="denoise", seconds=whole.value)]
        stages += [Stage(name="hand_over", seconds=s) for s in end.branch.hand_overs]
        stages.append(Stage(name="decode", seconds=decoding.value))
        return self._blank(method, unit).model_copy(
            update={
                "outcome": "done",
                "trace": end.branch.trace,
                "step_seconds": end.branch.seconds,
                "stages": tuple(stages),
            }
        )

    # -- one segment of a unit, for engines that hand branches from worker to worker

    def roots(self, unit: Unit) -> list[Branch]:
        """The first branches of what is missing of a unit, its own noise only."""
        able = [m for m in self.experiment.methods if not m.lacking]
        own = [m for m in able if unit.noise_seed(m) == unit.noise]
        todo = [m for m in own if self._existing(m, unit) is None]
        if not todo:
            return []
        start = functools.partial(self.sampler.start, unit.noise)
        return roots(self.sampler, [self._path(m) for m in todo], start)

    def segment(self, unit: Unit, branch: Branch, watch: Watch = lambda event: None) -> list[Branch]:
        """Walk one segment, record the cells that arrive or fail, and return the forks.

        `unit` does what is left when all segments are done: partners' noise, and the scores.
        """
        ended, forks, error = run_segment(
            self.sampler,
            self._text(unit.text, branch.denoiser),
            branch,
            lambda branch: watch(Event("step")),
            self._memory(unit.text, unit.noise),
        )
        for end in outcome(ended, error):
            for cell in self._cells(end, unit):
                self._keep(cell)
        return forks

    def _memory(self, text: str, seed: int) -> StoredMemory:
        unit = self.keys.unit(text, seed)
        return StoredMemory(self.store, self.sampler, unit, self.experiment.keep, self.keys.weights)

    def _path(self, method: Method) -> Method:
        """The path as it is walked: accelerators attached as late as is exact."""
        return as_walked(method, self.experiment.family) if self.experiment.late_attach else method

    def _arrive_or_fail(self, end: Arrival, methods: Sequence[Method], unit: Unit) -> list[CellRecord]:
        """Decoding can run out of memory where denoising did not."""
        try:
            return self._arrive(end, methods, unit)
        except CannotWrite:
            raise  # it would fail every cell that follows
        except Exception as error:
            return self._fail(Failure(end.methods, error), methods, unit)

    def _arrive(self, end: Arrival, methods: Sequence[Method], unit: Unit) -> list[CellRecord]:
        begin_peak(self.sampler.device)
        with timed(self.sampler.device) as decoding:
            pixels = self._decode(end.branch.state)
        peak = max(end.branch.peak, peak_bytes(self.sampler.device))
        # of a CPU it is not known, nor of steps that an earlier run did
        known = peak if peak and None not in end.branch.seconds else None
        texts = self._text_times
        stages = []
        if texts.jobs.get(unit.text) == self.job:  # another job's seconds are not comparable
            stages.append(Stage(name="encode", seconds=texts.seconds[unit.text]))
        stages += [Stage(name="hand_over", seconds=s) for s in end.branch.hand_overs]
        stages.append(Stage(name="decode", seconds=decoding.value))
        cells = []
        for method in methods:
            cell = self._blank(method, unit)
            path = self.store.put(
                cell.key, VIDEO, lambda p: video.write_lossless(p, pixels, self.sampler.fps)
            )
            self._link(path, method, unit)
            cells.append(
                cell.model_copy(
                    update={
                        "outcome": "done",
                        "reason": "",
                        "video": path.stem,
                        "video_bytes": path.stat().st_size,
                        "trace": end.branch.trace,
                        "step_seconds": end.branch.seconds,
                        "stages": tuple(stages),
                        "shared_steps": end.branch.shared,
                        "peak_memory_bytes": known,
                    }
                )
            )
        return cells

    def _decode(self, state: State) -> NDArray[np.uint8]:
        """The video of a finished state.  Raises UserError for one of another size than the family's."""
        pixels, family = self.sampler.decode(state), self.experiment.family
        expected = (family.frames, family.height, family.width, 3)
        if pixels.shape != expected:
            raise UserError(
                f"a decoded video of {_size(pixels.shape)}",
                f"{_size(expected)}, as the family's settings ask",
                "check the VAE's config.json, or set frames, height and width that this VAE can make",
            )
        return pixels

    def _fail(self, end: Failure, methods: Sequence[Method], unit: Unit) -> list[CellRecord]:
        error = end.error
        if isinstance(error, UserError):
            reason = f"{error.got}; {error.do}"
        else:
            reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            reason += f" ({self._store_traceback(error)})"
        return [self._blank(m, unit).model_copy(update={"reason": reason}) for m in methods]

    def _store_traceback(self, error: Exception) -> str:
        """Where the whole of it is, for whoever wants to mend it."""
        text = "".join(traceback.format_exception(error))
        name = f"failures/{digest(text)}.txt"
        write_text(self.run / name, text.encode("utf-8", "backslashreplace").decode())
        return f"traceback in {name}"

    def _blank(self, method: Method, unit: Unit) -> CellRecord:
        path = identity(method.segments)
        return CellRecord(
            id=self.keys.cell(method, unit),
            key=self.keys.video(method, unit),
            family=self.experiment.family.name,
            method=method.name,
            label=method.label,
            method_id=method.id,
            path=path,
            is_reference=method.name == self.experiment.reference,
            prompt=unit.prompt,
            text=unit.given,
            prompt_index=unit.prompt_index,
            seed=unit.seed,
            noise_seed=unit.noise_seed(method),
            outcome="failed",
            video=None,
            step_seconds=(),
            job=self.job,
            computes=_computes(method),
            shared_steps=0,
            protocol=self.protocol,
            finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            made=software(method.packages),
            host=platform.node(),
        )

    def _link(self, path: Path, method: Method, unit: Unit) -> None:
        """RUN/videos/… → the store; what a person opens."""
        link(self.run / "videos" / link_name(unit.prompt_index, unit.seed, method.name, method.id), path)

    # -- scores

    def _score(self, cells: Sequence[CellRecord]) -> list[CellRecord]:
        """The cells with the experiment's metrics; what is scored already is not scored again."""
        return score_all(cells, _reference(cells), self.experiment.metrics, self._chunks)

    def _chunks(self, cell: CellRecord) -> Iterator[NDArray]:
        path = self.store.get(cell.key, cell.video)
        if path is None:
            raise Damaged(
                f"the video of {cell.method}, prompt {cell.prompt_index}, seed {cell.seed} is damaged"
            )
        return video.chunks(path, CHUNK)


def _size(shape: Sequence[int]) -> str:
    """For a reader.

    >>> _size((17, 64, 96, 3))
    '17 frames of 96×64'
    """
    return f"{shape[0]} frames of {shape[2]}×{shape[1]}"


@functools.cache
def _computes(method: Method) -> dict[str, str]:
    """As Method.computes, which hashes: once a method, not once a cell."""
    return method.computes


def _reference(cells: Sequence[CellRecord]) -> CellRecord | None:
    return next((c for c in cells if c.is_reference and c.outcome == "done"), None)


def link(at: Path, target: Path) -> None:
    """A relative symbolic link, replaced whole: another process may be making the same one."""
    at.parent.mkdir(parents=True, exist_ok=True)
    fresh = at.with_name(f".{secrets.token_hex(8)}")
    fresh.symlink_to(os.path.relpath(target, at.parent))
    os.replace(fresh, at)
