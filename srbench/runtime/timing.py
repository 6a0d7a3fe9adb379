"""The timing pass: every method alone, in its turn, and nothing beside it.

In a sweep methods share steps, workers share the machine, and videos of earlier jobs bring times of
other days with them.  That is good enough for an estimate ("est."), and no latency to publish.  Here
one process walks each method whole, from noise to pixels, several rounds over, the methods
interleaved so that a machine that slows down slows all of them.  Nothing is stored but the times:
the report takes its medians from them and multiplies by what each video's steps were.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Callable, Sequence
from statistics import median

from srbench.config import fingerprint
from srbench.families import _clock
from srbench.planning.plan import Unit, timed_methods
from srbench.runtime.runner import Event, Runner
from srbench.store.records import TIMING, CellRecord, Stage, TimingPass, write_json

TEXTS = 4  # encoded for their time, the first of them to warm up


def measure(
    runner: Runner, unit: Unit, texts: Sequence[str], rounds: int, watch: Callable[[Event], None]
) -> None:
    """Walk every method `rounds` times on one prompt and seed, and write the times below RUN/timing.

    texts: of the suite; some are encoded anew for the time that it takes.  What a round
    has measured is written when it ends, so a kill loses one round at most.  A method that fails
    is told of in the record, and the others go on.
    """
    runner.encode([unit.text])
    encoding = _encoding(runner, [unit.text, *texts])
    todo, failed, walks = timed_methods(runner.experiment), dict[str, str](), list[CellRecord]()
    now = datetime.datetime.now(datetime.UTC)
    runner.load(todo, unit)
    path = runner.run / TIMING / f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(2)}.json"
    busy, others = _clock.busy(), _clock.others_bytes(runner.sampler.device)
    for done in range(rounds):
        first = done % max(1, len(todo))
        for method in [*todo[first:], *todo[:first]]:
            try:
                walks.append(_with(runner.alone(method, unit), encoding))
            except Exception as error:
                failed[method.name] = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            watch(Event("walk", failed=int(method.name in failed)))
        todo = [m for m in todo if m.name not in failed]
        write_json(
            path,
            TimingPass(
                protocol=runner.protocol,
                device=fingerprint.described(runner.experiment.family.device),
                began=now.isoformat(timespec="seconds"),
                asked=rounds,
                rounds=done + 1,
                busy=busy,
                others_bytes=others,
                walks=tuple(walks),
                failed=failed,
            ),
        )


def _encoding(runner: Runner, texts: Sequence[str]) -> float:
    """Median seconds of encoding a text, after the first."""
    seconds = [e.seconds for e in runner.sampler.encode(list(dict.fromkeys(texts))[:TEXTS]).values()]
    return median(seconds[1:] or seconds)


def _with(walk: CellRecord, encoding: float) -> CellRecord:
    return walk.model_copy(update={"stages": (Stage(name="encode", seconds=encoding), *walk.stages)})
