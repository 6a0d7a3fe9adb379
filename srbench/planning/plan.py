"""What an experiment amounts to, before anything runs: units, cells, model evaluations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from srbench.config.experiment import Experiment, Method, Role, digest
from srbench.config.registry import identity
from srbench.errors import UserError
from srbench.metrics.base import Metric, all_facts, unavailable
from srbench.store.objects import VIDEO, Store
from srbench.store.records import Brief, CellRecord, MetricFacts, cell_path, facts_hash, read_cell, scan
from srbench.suites.base import listed, offsets_of, seeding, text, variant


@dataclass(frozen=True)
class Unit:
    """The work that is done together: all methods of one prompt and seed.

    given: the text that the model is given where it is not the prompt itself.  seed: its number among
    the suite's; the noise is seeded with offset + stride · seed, see `suites.base.Seeding`.
    """

    prompt_index: int
    prompt: str
    seed: int
    given: str | None = None
    offset: int = 0
    stride: int = 1

    @property
    def text(self) -> str:
        """What the model is given: the bits of a video depend on it, and not on the prompt."""
        return self.prompt if self.given is None else self.given

    @property
    def noise(self) -> int:
        """The seed of its own noise."""
        return self.offset + self.stride * self.seed

    def noise_seed(self, method: Method) -> int:
        """The seed of the noise that a method's video starts from: its own, or its pair's other."""
        return self.offset + self.stride * method.noise_seed(self.seed)


def units(experiment: Experiment, order: Sequence[str] = ()) -> list[Unit]:
    """Prompt by prompt, so that an interrupted run has whole prompts.

    order: the prompts of the run's record, which earlier jobs on it may have begun; a
    prompt's number is its place there.
    """
    prompts = experiment.suite.list_prompts()
    place = {p: i for i, p in enumerate(order or prompts)}
    given = {p: t for p in prompts if (t := text(experiment.suite, p)) != p}
    seeds, offsets = experiment.suite.list_seeds(), offsets_of(experiment.suite)
    stride = seeding(experiment.suite).seed
    return [Unit(place[p], p, s, given.get(p), offsets[p], stride) for p in prompts for s in seeds]


def warnings(experiment: Experiment, prompts: Sequence[str]) -> tuple[str, ...]:
    """What every reader of a run with these prompts must know; some may be of earlier jobs."""
    own = set(experiment.suite.list_prompts())
    texts = [text(experiment.suite, p) if p in own else p for p in prompts]
    of_texts = experiment.family.warnings_of(texts) if hasattr(experiment.family, "warnings_of") else ()
    return (*experiment.family.warnings(), *of_texts)


@dataclass(frozen=True)
class Shard:
    """The part of a run that one process of several does: of every `of` units the `place`-th, from 1.

    The processes know nothing of each other; what two of them did both is the same bytes twice.
    """

    place: int = 1
    of: int = 1

    @classmethod
    def read(cls, text: str) -> Shard:
        """Of `i/n`.  Raises ValueError for anything else.

        >>> Shard.read("3/16")
        Shard(place=3, of=16)
        """
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        shard = cls(int(found[1]), int(found[2])) if found else cls(0)
        if not 1 <= shard.place <= shard.of:
            raise ValueError("i/n with 1 ≤ i ≤ n, as 3/16")
        return shard

    def part(self, units: Sequence[Unit]) -> list[Unit]:
        """Its units, in their order.

        >>> units = [Unit(i, f"prompt {i}", 0) for i in range(8)]
        >>> [u.prompt_index for u in Shard(2, 3).part(units)]
        [1, 4, 7]
        """
        return list(units[self.place - 1 :: self.of])


class Keys:
    """The names of one experiment's units, videos and cells on one ground.

    ground: the software, device class and thread count that bits depend on.
    """

    def __init__(self, experiment: Experiment, ground: Mapping[str, str]) -> None:
        self._family = experiment.family
        self._variant, how = variant(experiment.suite), seeding(experiment.suite)
        # with the list: in another, a prompt would have another noise
        self._seeding = [] if how.is_plain else [how, listed(experiment.suite) if how.prompt else ()]
        self._base = digest([self._family.essence(), ground], 64)
        # hashed once: a plan asks for tens of thousands of cells
        self._paths: dict[Method, str] = {}
        self._weights: dict[frozenset[Role], str] = {}

    @property
    def protocol(self) -> str:
        """Hash of all that two cells of one column must share; a method's own choices excluded."""
        texts = [self._variant] if self._variant else []
        return digest([self._base, self.weights(get_args(Role)), *texts, *self._seeding])

    def weights(self, roles: Iterable[Role]) -> str:
        """What names the weights of these models and of what all models share."""
        asked = frozenset(roles)
        if asked not in self._weights:
            self._weights[asked] = digest(self._family.weights_identity(asked), 64)
        return self._weights[asked]

    def unit(self, text: str, seed: int) -> str:
        """Hash over all that determines the bits of a text and a noise's seed, methods and weights apart."""
        return digest(["unit", self._base, text, seed], 64)

    def video(self, method: Method, unit: Unit) -> str:
        """Hash over all that determines a video's bytes."""
        if method not in self._paths:
            weights = self.weights(s.denoiser.model for s in method.segments)
            self._paths[method] = digest([weights, method.segments, method.steps, *method.own_sampler], 64)
        return digest(["video", self._base, self._paths[method], unit.text, unit.noise_seed(method)], 64)

    def cell(self, method: Method, unit: Unit) -> str:
        """What names a cell in its run; one video may be the cell of several (method, seed)."""
        own = [] if unit.given is None else [unit.prompt]  # two prompts may share a text, and so videos
        return digest(["cell", self.video(method, unit), method.noise, unit.seed, *own], 64)


def protocol(experiment: Experiment, ground: Mapping[str, str]) -> str:
    """Hash of all that two cells of one column must share; a method's own choices excluded."""
    return Keys(experiment, ground).protocol


def mistakes(experiment: Experiment) -> list[UserError]:
    """What is wrong with parts that are right by themselves, before a model loads."""
    parts = (experiment.family, experiment.suite, experiment.engine)
    found = [m for part in parts for m in getattr(part, "mistakes", list)()]
    for method in (m for m in experiment.methods if not m.lacking):
        for i, segment in enumerate(method.segments):
            where = f"method.{method.name}.path.{i}"
            found += experiment.family.mistakes_of(segment.denoiser, where)
    try:
        all_facts(experiment.metrics, experiment.suite.list_prompts())
        found += _noise_too_high(experiment)
    except UserError as error:
        found.append(error)
    return found


def _noise_too_high(experiment: Experiment) -> list[UserError]:
    """Noise's seeds that no generator takes, of the pairs' others too."""
    suite, how = experiment.suite, seeding(experiment.suite)
    highest = max(offsets_of(suite).values()) + how.seed * (max(suite.list_seeds()) | 1)
    if highest < 2**63:
        return []
    got = f"suite.seeding = {how.said}, of which a noise's seed comes to {highest:,}"
    return [UserError(got, "noise seeds below 2⁶³", "lower suite.seeding or suite.seeds")]


def run_folder(experiment: Experiment, results: Path, run: str | None, ground: Mapping[str, str]) -> Path:
    """RUN: named by protocol, prompts and seeds unless a name was given, so one more δ is the same run."""
    asked = [protocol(experiment, ground), experiment.suite.list_prompts(), experiment.suite.list_seeds()]
    return results / experiment.name / (run or digest(asked, 8))


def existing_cell(run: Path, store: Store, cell: str, retry_failed: bool) -> CellRecord | None:
    """A cell that is done with its video in the store, or that failed; None if it is to be computed."""
    path = cell_path(run, cell)
    if not path.exists():
        return None
    record = read_cell(path)
    if record.outcome == "skipped":
        return None  # asked for again only where nothing is lacking any more
    kept = store.has(record.key) if record.outcome == "done" else not retry_failed
    return record if kept else None


def stored_cell(store: Store, key: str) -> CellRecord | None:
    """The cell that a video was first computed for, without its scores; None where there is none."""
    path = store.known_path(key)
    return read_cell(path) if store.has(key) and path.exists() else None


@dataclass(frozen=True)
class Progress:
    """What of an experiment is there already.

    cells: each unit's cells that need no computing, by method name; failed ones too, unless
    they are to be tried again.  elsewhere: methods whose video another run left in the
    store, so that it only has to be scored.  unfinished: the units of which a video or a
    score is missing.  failed: how many cells have failed and stay so.
    """

    cells: Mapping[Unit, Mapping[str, Brief]]
    elsewhere: Mapping[Unit, Set[str]]
    unfinished: tuple[Unit, ...]
    failed: int


class Wanted:
    """For a prompt, the scores of its videos: hash of the facts, and whether against a reference."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics
        self._hashes: dict[MetricFacts, str] = {}
        self._unavailable = [m for m in metrics if unavailable(m)]

    def unavailable(self, prompt: str) -> frozenset[str]:
        """Those that this machine lacks something for: having said so once is all there is to do."""
        return frozenset(self._hash(f) for f in all_facts(self._unavailable, [prompt]).values())

    def __call__(self, prompt: str) -> dict[str, bool]:
        return {self._hash(f): f.needs_reference for f in all_facts(self._metrics, [prompt]).values()}

    def _hash(self, facts: MetricFacts) -> str:
        if facts not in self._hashes:
            self._hashes[facts] = facts_hash(facts.model_dump(mode="json"))
        return self._hashes[facts]


def progress(
    experiment: Experiment, todo: Sequence[Unit], run: Path, store: Store, ground: Mapping[str, str]
) -> Progress:
    """Compare a run's records and the store's folders with what is asked; no record is read whole."""
    briefs, there, keys = scan(run), store.listing(), Keys(experiment, ground)
    wanted = Wanted(experiment.metrics)

    def kept(method: Method, cell: str) -> Brief | None:
        brief = briefs.get(cell)
        if brief is None:
            return None
        if brief.outcome == "done":
            sound = there.has(brief.key, f"{brief.video}{VIDEO}", brief.video_bytes)
        elif brief.outcome == "skipped":
            sound = bool(method.lacking)
        else:
            sound = not experiment.retry_failed
        return brief if sound else None

    cells: dict[Unit, dict[str, Brief]] = {}
    elsewhere: dict[Unit, Set[str]] = {}
    unfinished, failed = [], 0
    for unit in todo:
        ids = {m.name: keys.cell(m, unit) for m in experiment.methods}
        found = {m.name: kept(m, ids[m.name]) for m in experiment.methods}
        there_already = {name: brief for name, brief in found.items() if brief is not None}
        cells[unit] = there_already
        elsewhere[unit] = {
            m.name
            for m in experiment.methods
            if ids[m.name] not in briefs and keys.video(m, unit) in there.keys
        }
        failed += sum(b.outcome == "failed" for b in there_already.values())
        out_of_reach = wanted.unavailable(unit.prompt)
        if len(there_already) < len(found) or not _all_scored(
            there_already, wanted(unit.prompt), out_of_reach, experiment
        ):
            unfinished.append(unit)
    return Progress(cells, elsewhere, tuple(unfinished), failed)


def _all_scored(
    cells: Mapping[str, Brief],
    wanted: Mapping[str, bool],
    out_of_reach: frozenset[str],
    experiment: Experiment,
) -> bool:
    """Whether every video has the scores that can be had.

    wanted: metrics by the hash of their facts, and whether each needs a reference.
    out_of_reach: those of them whose "missing" need not be tried again.
    """
    settled = {"done", *(() if experiment.retry_failed else ("failed",))}
    against = cells.get(experiment.reference)
    video = against.video if against and against.outcome == "done" else None

    def has(cell: Brief, metric: str, needs_reference: bool) -> bool:
        if needs_reference and video is None:
            return True  # nothing to score against
        return any(
            facts == metric
            and (reference == video or not needs_reference)
            and (outcome in settled or (outcome == "missing" and metric in out_of_reach))
            for facts, reference, outcome in cell.scores
        )

    done = [c for c in cells.values() if c.outcome == "done"]
    return all(has(c, metric, needs) for c in done for metric, needs in wanted.items())


def unfinished(
    experiment: Experiment, todo: Sequence[Unit], run: Path, store: Store, ground: Mapping[str, str]
) -> list[Unit]:
    """The units of which a video or a score is missing."""
    return list(progress(experiment, todo, run, store, ground).unfinished)


def timed_methods(experiment: Experiment) -> list[Method]:
    """Those that a timing pass walks: a scale row has no latency, being no rival."""
    return [m for m in experiment.methods if m.role == "method" and m.noise == "own" and not m.lacking]


def settings(experiment: Experiment) -> dict[str, object]:
    """The whole experiment as plain data, for the record."""
    plain = identity(experiment)
    assert isinstance(plain, dict)
    return plain
