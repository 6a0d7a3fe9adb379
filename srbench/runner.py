"""One (prompt, seed): walk, decode, store, score.  Knows nothing of where it runs."""

from __future__ import annotations

import datetime
import functools
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from srbench import video
from srbench.clock import timed
from srbench.errors import UserError
from srbench.experiment import Denoiser, Experiment, Method, digest
from srbench.families.base import Sampler, Text
from srbench.ground import ground
from srbench.paths import late_attach
from srbench.plan import (
    Unit,
    cell_id,
    cell_path,
    existing_cell,
    protocol,
    stored_cell,
    stored_path,
    video_key,
)
from srbench.registry import identity
from srbench.sampling.memory import StoredMemory
from srbench.sampling.walk import Arrival, Failure, walk
from srbench.scoring import score
from srbench.store.objects import Store
from srbench.store.records import (
    CellRecord,
    Stage,
    TextTimes,
    read_text_times,
    write_json,
)


@dataclass(frozen=True)
class Event:
    """What a watcher is told: `kind` is unit, cells or step."""

    kind: str
    amount: int = 1
    failed: int = 0


Watch = Callable[[Event], None]


class Runner:
    """Runs units of one experiment into one run folder and one store."""

    def __init__(self, experiment: Experiment, run: Path, store: Store, threads: int) -> None:
        torch.set_num_threads(threads)
        self.experiment, self.run, self.store = experiment, run, store
        self.ground = ground(threads, experiment.family.device)
        self.protocol = protocol(experiment)

    @functools.cached_property
    def sampler(self) -> Sampler:
        """The family's models; a unit with nothing to compute never asks for them."""
        return self.experiment.family.open()

    # -- text first

    def texts(self, prompts: Sequence[str]) -> list[str]:
        """Every text that the prompts and methods need: prompts, then negative prompts."""
        negatives = [self.negative(s.denoiser) for m in self.experiment.methods for s in m.segments]
        return list(dict.fromkeys([*prompts, *negatives]))

    def negative(self, denoiser: Denoiser) -> str:
        own = denoiser.negative_prompt
        return self.experiment.family.negative_prompt if own is None else own

    def _text_key(self, text: str) -> str:
        family = self.experiment.family
        parts = family.weights_identity(())["components"]
        weights = [parts["tokenizer"], parts["text_encoder"]]
        return digest(["text", text, weights, family.max_sequence_length, family.dtype, self.ground], 64)

    def encode(self, prompts: Sequence[str]) -> None:
        """Encode and store what is not stored yet; the encoder is unloaded afterwards."""
        missing = [t for t in self.texts(prompts) if self.store.get(self._text_key(t)) is None]
        if not missing:
            return
        encoded = self.sampler.encode(missing)
        for text, e in encoded.items():
            tensors = {"embedding": e.embedding.cpu().contiguous()}
            self.store.put(self._text_key(text), ".safetensors", functools.partial(save_file, tensors))
        times = self._text_times.seconds | {text: e.seconds for text, e in encoded.items()}
        write_json(self.run / "texts.json", TextTimes(seconds=times))

    @property
    def _text_times(self) -> TextTimes:
        path = self.run / "texts.json"
        return read_text_times(path) if path.exists() else TextTimes(seconds={})

    def _text(self, prompt: str, denoiser: Denoiser) -> Text:
        def load(text: str) -> torch.Tensor:
            path = self.store.get(self._text_key(text))
            assert path is not None, "encode() comes first"
            return load_file(path)["embedding"].to(self.sampler.device)

        return Text(load(prompt), load(self.negative(denoiser)))

    # -- one unit

    def unit(self, unit: Unit, watch: Watch = lambda event: None) -> None:
        """Compute, store and score what is missing of one (prompt, seed)."""
        cells: dict[str, CellRecord] = {}
        # a partner's noise comes last: by then its own unit may have made that video
        for seed in sorted({m.noise_seed(unit.seed) for m in self.experiment.methods}, key=unit.seed.__ne__):
            cells |= self._videos(
                [m for m in self.experiment.methods if m.noise_seed(unit.seed) == seed], unit, watch
            )
        failed = 0
        for cell in self._score([cells[m.id] for m in self.experiment.methods if m.id in cells]):
            write_json(cell_path(self.run, cell.id), cell)
            failed += cell.outcome == "failed"
        watch(Event("unit", failed=failed))

    def _videos(self, methods: Sequence[Method], unit: Unit, watch: Watch) -> dict[str, CellRecord]:
        """The cells of methods that start from the same noise; what is missing is computed."""
        found = {m.id: self._existing(m, unit) for m in methods}
        todo = [m for m in methods if found[m.id] is None]
        cells = {i: c for i, c in found.items() if c is not None}
        for cell in self._generate(todo, unit, watch) if todo else ():
            write_json(cell_path(self.run, cell.id), cell)  # at once: a kill loses no arrival
            if cell.outcome == "done":
                write_json(stored_path(self.store, cell.key), cell)
            cells[cell.method_id] = cell
        return cells

    def _existing(self, method: Method, unit: Unit) -> CellRecord | None:
        key = video_key(self.experiment, method, unit, self.ground)
        own = existing_cell(self.run, self.store, cell_id(key, method, unit), self.experiment.retry_failed)
        return self._adopt(own or stored_cell(self.store, key), method, unit)

    def _adopt(self, cell: CellRecord | None, method: Method, unit: Unit) -> CellRecord | None:
        """A cell that this or another run computed, by the names used here; None if it is damaged."""
        if cell is None:
            return None
        path = self.store.get(cell.key)
        if cell.outcome == "done" and path is None:
            return None
        if path is not None:
            self._link(path, method, unit)
        names = self._blank(method, unit)
        return cell.model_copy(
            update={
                name: getattr(names, name)
                for name in ("id", "method", "label", "method_id", "is_reference", "prompt_index", "seed")
            }
        )

    def _generate(self, methods: Sequence[Method], unit: Unit, watch: Watch) -> Iterator[CellRecord]:
        """Walk the methods and turn every arrival and failure into cells."""
        by_name = {m.name: m for m in methods}
        paths = [self._path(m) for m in methods]
        (seed,) = {m.noise_seed(unit.seed) for m in methods}
        for end in walk(
            self.sampler,
            lambda denoiser: self._text(unit.prompt, denoiser),
            paths,
            lambda steps: self.sampler.start(seed, steps),
            lambda branch: watch(Event("step")),
            self._memory(unit.prompt, seed),
        ):
            names = [by_name[m.name] for m in end.methods]
            if isinstance(end, Arrival):
                yield from self._arrive_or_fail(end, names, unit)
            else:
                yield from self._fail(end, names, unit)

    def _memory(self, prompt: str, seed: int) -> StoredMemory:
        family = self.experiment.family
        base = [family.essence(), prompt, seed, self.ground]
        return StoredMemory(self.store, self.sampler, base, self.experiment.keep, family.weights_identity)

    def _path(self, method: Method) -> Method:
        """The path as it is walked: accelerators attached as late as is exact."""
        if not self.experiment.late_attach:
            return method
        calls = self.sampler.calls_per_step(method.segments[0].denoiser)
        return late_attach(method, self.sampler.timesteps(method.steps), calls)

    def _arrive_or_fail(self, end: Arrival, methods: Sequence[Method], unit: Unit) -> list[CellRecord]:
        """Decoding can run out of memory where denoising did not."""
        try:
            return self._arrive(end, methods, unit)
        except (RuntimeError, ValueError) as error:
            return self._fail(Failure(end.methods, error), methods, unit)

    def _arrive(self, end: Arrival, methods: Sequence[Method], unit: Unit) -> list[CellRecord]:
        with timed(self.sampler.device) as decoding:
            pixels = self.sampler.decode(end.branch.state)
        encoding = self._text_times.seconds.get(unit.prompt)
        stages = [] if encoding is None else [Stage(name="encode", seconds=encoding)]
        stages += [Stage(name="hand_over", seconds=s) for s in end.branch.hand_overs]
        stages.append(Stage(name="decode", seconds=decoding.value))
        cells = []
        for method in methods:
            cell = self._blank(method, unit)
            path = self.store.put(
                cell.key, ".webm", lambda p: video.write_lossless(p, pixels, self.sampler.fps)
            )
            self._link(path, method, unit)
            cells.append(
                cell.model_copy(
                    update={
                        "outcome": "done",
                        "reason": "",
                        "video": path.stem,
                        "trace": end.branch.trace,
                        "step_seconds": end.branch.seconds,
                        "stages": tuple(stages),
                        "shared_steps": end.branch.shared,
                        "peak_memory_bytes": _peak_memory(self.sampler.device),
                    }
                )
            )
        return cells

    def _fail(self, end: Failure, methods: Sequence[Method], unit: Unit) -> list[CellRecord]:
        error = end.error
        if isinstance(error, UserError):
            reason = f"{error.got}; {error.do}"
        else:
            reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        return [self._blank(m, unit).model_copy(update={"reason": reason}) for m in methods]

    def _blank(self, method: Method, unit: Unit) -> CellRecord:
        path = identity(method.segments)
        key = video_key(self.experiment, method, unit, self.ground)
        return CellRecord(
            id=cell_id(key, method, unit),
            key=key,
            family=self.experiment.family.name,
            method=method.name,
            label=method.label,
            method_id=method.id,
            path=path,
            is_reference=method.name == self.experiment.reference,
            prompt=unit.prompt,
            prompt_index=unit.prompt_index,
            seed=unit.seed,
            outcome="failed",
            video=None,
            step_seconds=(),
            shared_steps=0,
            protocol=self.protocol,
            finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            host=platform.node(),
        )

    def _link(self, path: Path, method: Method, unit: Unit) -> None:
        """videos/p003-seed1/<method>-<id>.webm → the store; what a person opens."""
        folder = self.run / "videos" / f"p{unit.prompt_index:03}-seed{unit.seed}"
        folder.mkdir(parents=True, exist_ok=True)
        link = folder / f"{method.name}-{method.id[:4]}{path.suffix}"
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(path, folder))

    # -- scores

    def _score(self, cells: Sequence[CellRecord]) -> list[CellRecord]:
        """The cells with the experiment's metrics; what is scored already is not scored again."""
        reference = next((c for c in cells if c.is_reference and c.outcome == "done"), None)
        held: dict[str, NDArray] = {}

        def pixels(cell: CellRecord) -> NDArray:
            if cell.key not in held:
                # of two videos at most: the reference, and the one that is being scored
                for other in [i for i in held if reference is None or i != reference.key]:
                    del held[other]
                held[cell.key] = self._pixels(cell)
            return held[cell.key]

        return [score(cell, reference, self.experiment.metrics, pixels) for cell in cells]

    def _pixels(self, cell: CellRecord) -> NDArray:
        path = self.store.get(cell.key)
        assert path is not None
        return video.read(path)[0]


def _peak_memory(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
