"""Times of true-size Wan 2.1 and CogVideoX on this device: `make bench-gpu`.

The transformers are made on the device with random weights and the families' own sizes, and
our own loops run them; time does not depend on the weights' values.  What is timed is the
denoising loop alone: no text encoder, no VAE.  It says nothing about quality.

Rows: each model alone; the stock pipeline beside our loop (and whether the latents are the same
bits); SRDiffusion at the mean switch steps that the paper's latencies imply, as fixed switches;
TeaCache, with a polynomial that lets every other step be reused (the paper's 0.2 is 1.96×
faster); other attention; compiled blocks.  What a row should take is reckoned from the step
times of each model alone; more than 5 % beside it is flagged.  A step is a guided one.

Without a GPU it runs on the twins (`family.scale=tiny`) and says so: plumbing only.
Writes one JSON record, results/bench-gpu/DEVICE.json.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import functools
import gc
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from diffusers import (
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    WanPipeline,
    WanTransformer3DModel,
)

from srbench import errors
from srbench.config import attention, fingerprint, yaml_files
from srbench.config.experiment import Method, Role, read_method
from srbench.config.registry import build
from srbench.errors import Mistakes, UserError
from srbench.families.base import Text
from srbench.sampling.walk import Branch, Failure, walk
from srbench.store.objects import write_text

FOLDER = Path(__file__).parents[2] / "results" / "bench-gpu"
FAMILIES = ("wan21_480p", "wan21_720p", "cogvideox")
# After how many of 50 steps SRDiffusion leaves the large model, by the speedups of arXiv 2505.19151.
SWITCHES = {"wan21_480p": (16, 10, 8), "wan21_720p": (9,), "cogvideox": (20, 15, 10, 6)}
# What differs from the classes' defaults, which are the sizes of Wan 14B and of CogVideoX-2B.
SIZES: dict[str, dict[Role, dict[str, Any]]] = {
    "wan": {"large": {}, "small": {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960}},
    "cogvideox": {
        "large": {
            "num_attention_heads": 48,
            "num_layers": 42,
            "use_rotary_positional_embeddings": True,
        },
        "small": {},
    },
}
TEXT_WIDTH = 4096
# Every step adds 0.02, so every other one stays below.
TEACACHE = {"kind": "teacache", "threshold": 0.03, "coefficients": [0.0, 0.02]}
BACKENDS = ("flash", "_flash_3", "sage", "_sage_qk_int8_pv_fp8_cuda", "_sage_qk_int8_pv_fp8_cuda_sm90")
TOLERANCE = 0.05


# -- the models


def family(name: str, tiny: bool, steps: int, device: str) -> Any:
    """A family of conf/ on diffusers' own grid, its schedulers' files those of its twin."""
    plain = yaml_files.read("family", name) | {"steps": steps, "device": device}
    if plain["kind"] == "wan":
        plain["sigma_grid"] = "diffusers"  # the stock pipeline knows no other
    if tiny:
        return build("families", plain | {"scale": "tiny"}, "family")
    twin = build("families", plain | {"scale": "tiny"}, "family")
    return dataclasses.replace(
        build("families", plain | {"price": None}, "family"),
        **{role: twin.weights(role) for role in ("large", "small", "components")},
    )


def random_model(kind: str, role: Role, device: torch.device) -> Any:
    """A transformer of true size in bfloat16, as `from_pretrained(dtype=bfloat16)` would leave it."""
    cls = WanTransformer3DModel if kind == "wan" else CogVideoXTransformer3DModel
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)  # in float32 first, 14B would not fit beside itself
    try:
        with device:
            model = cls(**SIZES[kind][role]).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)
    for name, parameter in model.named_parameters():
        if any(part in name for part in cls._keep_in_fp32_modules or ()):
            parameter.data = parameter.data.float()
    return model


class Lab:
    """One family on one device, and how long its methods take."""

    def __init__(self, name: str, tiny: bool, steps: int, device: str, repeats: int) -> None:
        self.name, self.steps, self.repeats = name, steps, repeats
        self.family = family(name, tiny, steps, device)
        self.kind = self.family.kind
        self.sampler = self.family.open()
        self.device = self.sampler.device
        if tiny:
            encoded = self.sampler.encode(["a red circle", self.family.negative_prompt])
            self.text = Text(*(e.embedding for e in encoded.values()))
            return
        for role in get_args(Role):
            self.sampler._models[role, self.family.dtype] = random_model(self.kind, role, self.device)
        generator = torch.Generator().manual_seed(0)
        shape = (1, self.family.max_sequence_length, TEXT_WIDTH)
        prompt, negative = (torch.randn(shape, generator=generator) for _ in range(2))
        self.text = Text(*(t.to(self.device, self.sampler.dtype) for t in (prompt, negative)))

    def walked(self, method: Method) -> Branch:
        """The method alone, from noise to its last state."""
        (end,) = walk(self.sampler, lambda _: self.text, [method], functools.partial(self.sampler.start, 7))
        if isinstance(end, Failure):
            raise end.error
        return end.branch

    def stock(self) -> torch.Tensor:
        """The latents that diffusers' own pipeline makes with the large model."""
        model, scheduler = self.sampler.model("large"), self.sampler._schedule(None)
        cls = WanPipeline if self.kind == "wan" else CogVideoXPipeline
        pipeline = cls(tokenizer=None, text_encoder=None, vae=None, transformer=model, scheduler=scheduler)
        pipeline.set_progress_bar_config(disable=True)
        own = {} if self.kind == "wan" else {"use_dynamic_cfg": self.family.dynamic_guidance}
        return pipeline(
            prompt_embeds=self.text.prompt,
            negative_prompt_embeds=self.text.negative,
            height=self.family.height,
            width=self.family.width,
            num_frames=self.family.frames,
            num_inference_steps=self.steps,
            guidance_scale=self.family.guidance_scale,
            generator=torch.Generator().manual_seed(7),
            output_type="latent",
            **own,
        ).frames

    @contextlib.contextmanager
    def compiled(self, role: Role) -> Iterator[None]:
        """The model's blocks through torch.compile; on leaving as before."""
        model = self.sampler.model(role)
        blocks = model.blocks if self.kind == "wan" else model.transformer_blocks
        for block in blocks:
            block.compile(fullgraph=True)
        try:
            yield
        finally:
            for block in blocks:
                block._compiled_call_impl = None
            torch._dynamo.reset()

    def close(self) -> None:
        self.sampler._models.clear()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def method(name: str, *path: dict[str, Any]) -> Method:
    """A method as its YAML gives it."""
    mistakes = Mistakes()
    read = read_method(name, {"path": path}, mistakes)
    mistakes.stop_if_any()
    assert read is not None
    return read


# -- what is timed


@dataclasses.dataclass
class Row:
    """One line of the record.

    seconds: of the whole loop, the median of `repeats`.  computed, reused: of one step of each
    model, the median.  implied: what the loop should take by the step times of each model
    alone.  warm_up: seconds of a first loop that is not counted, for what compiles.
    peak_memory: bytes.
    """

    name: str
    outcome: str = "done"
    reason: str = ""
    seconds: float | None = None
    computed: dict[str, float] = dataclasses.field(default_factory=dict)
    reused: dict[str, float] = dataclasses.field(default_factory=dict)
    steps: dict[str, int] = dataclasses.field(default_factory=dict)
    implied: float | None = None
    speedup: float | None = None
    implied_speedup: float | None = None
    off: float | None = None
    flagged: bool = False
    same_bits: bool | None = None
    warm_up: float | None = None
    peak_memory: int | None = None


class Bench:
    """The rows of one family."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.rows: dict[str, Row] = {}

    def run(self) -> list[Row]:
        """All rows; one that fails says why and the others go on."""
        last = {"model": "small"}
        self.time("large", method("large", {"model": "large"}))
        self.time("small", method("small", last))
        self.stock()
        ks = sorted({max(1, round(k * self.lab.steps / 50)) for k in SWITCHES[self.lab.name]}, reverse=True)
        first = [{"model": "large", "until": {"kind": "fixed_step", "step": k}} for k in ks]
        for k, until in zip(ks, first, strict=True):
            self.time(f"switch at {k}", method("hybrid", until, last))
        middle, k = first[len(ks) // 2], ks[len(ks) // 2]
        cached = {"accelerators": [TEACACHE]}
        self.time("large + TeaCache", method("cached", {"model": "large"} | cached))
        self.time(f"switch at {k} + TeaCache", method("cached", middle, last | cached))
        for backend in BACKENDS:
            other = {"attention": backend}
            self.time(f"large + {backend}", method("other", {"model": "large"} | other), backend)
        both = last | cached | {"attention": "sage"}
        self.time(f"switch at {k} + TeaCache + sage", method("all", middle, both), "sage")
        self.compiled()
        self.reckon()
        return list(self.rows.values())

    def time(self, name: str, made: Method, backend: Any = None) -> Row:
        row = self.rows[name] = Row(name)
        missing = attention.mistake(backend, "bench") if backend else None
        if missing:
            row.outcome, row.reason = "skipped", f"needs {missing.expected}: {missing.do}"
        else:
            with self.told(row):
                began = time.perf_counter()
                self.lab.walked(made)  # once for what warms up: kernels chosen, graphs compiled
                row.warm_up = time.perf_counter() - began
                walks = [self.measure(row, made) for _ in range(self.lab.repeats)]
                row.seconds = statistics.median(walks)
        print(self.line(row), flush=True)
        return row

    @contextlib.contextmanager
    def told(self, row: Row) -> Iterator[None]:
        """A row that cannot be run here is a row that says so, with its peak memory if it can."""
        cuda = self.lab.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.lab.device)
        try:
            yield
        except UserError as error:
            row.outcome, row.reason = "failed", f"{error.got}; {error.do}"
        except Exception as error:  # a kernel or a compiler that this device does not have
            row.outcome = "failed"
            row.reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        if cuda:
            row.peak_memory = torch.cuda.max_memory_allocated(self.lab.device)

    def measure(self, row: Row, made: Method) -> float:
        """Seconds of one loop: its steps, device-synchronised, and its hand-overs."""
        branch = self.lab.walked(made)
        seconds: dict[tuple[str, bool], list[float]] = {}
        for step, took in zip(branch.trace.steps, branch.seconds, strict=True):
            assert took is not None
            seconds.setdefault((step.model, step.calls_computed == 0), []).append(took)
        row.computed = {m: statistics.median(s) for (m, again), s in seconds.items() if not again}
        row.reused = {m: statistics.median(s) for (m, again), s in seconds.items() if again}
        row.steps = {f"{m} {'reused' if again else 'computed'}": len(s) for (m, again), s in seconds.items()}
        self.latents = branch.state.latents
        return sum(s for s in branch.seconds if s is not None) + sum(branch.hand_overs)

    def stock(self) -> None:
        """Diffusers' own pipeline, which should take as long as our loop and give its bits."""
        row = self.rows["large, stock"] = Row("large, stock")
        with self.told(row):
            self.lab.stock()
            took = []
            for _ in range(self.lab.repeats):
                self.synchronise()
                began = time.perf_counter()
                latents = self.lab.stock()
                self.synchronise()
                took.append(time.perf_counter() - began)
            row.seconds = statistics.median(took)
            row.steps = {"large computed": self.lab.steps}
            ours = self.lab.walked(method("large", {"model": "large"})).state.latents
            row.same_bits = torch.equal(ours, latents)
        print(self.line(row), flush=True)

    def synchronise(self) -> None:
        if self.lab.device.type == "cuda":
            torch.cuda.synchronize(self.lab.device)

    def compiled(self) -> None:
        with self.lab.compiled("large"):
            self.time("large, compiled", method("large", {"model": "large"}))

    # -- what they should take

    def reckon(self) -> None:
        """Speedups, measured and implied by the step times of each model alone."""
        alone = {m: self.rows[m].computed.get(m) for m in get_args(Role)}
        base = self.rows["large"].seconds
        for row in self.rows.values():
            if row.seconds is None or base is None:
                continue
            row.speedup = base / row.seconds
            if "compiled" in row.name or any(b in row.name for b in BACKENDS):
                continue  # their steps take what they take
            row.implied = implied(row, alone)
            if row.implied:
                row.implied_speedup = base / row.implied
                row.off = row.seconds / row.implied - 1
                row.flagged = abs(row.off) > TOLERANCE

    def line(self, row: Row) -> str:
        took = "–" if row.seconds is None else f"{row.seconds:.4g} s"
        bits = {True: ", same bits as ours", False: ", OTHER BITS than ours", None: ""}[row.same_bits]
        return f"  {row.name:40} {took:>9}{bits}  {row.outcome if row.reason else ''} {row.reason}".rstrip()


def implied(row: Row, alone: Mapping[str, float | None]) -> float | None:
    """Steps times what one takes when its model runs alone; a reused step what it took here."""
    total = 0.0
    for what, n in row.steps.items():
        model, kind = what.split()
        one = row.reused[model] if kind == "reused" else alone[model]
        if one is None:
            return None
        total += n * one
    return total


# -- the record


def table(name: str, rows: Sequence[Row]) -> str:
    """For the terminal."""

    def number(value: float | None, unit: str = "") -> str:
        return "–" if value is None else f"{value:.3g}{unit}"

    lines = [f"{name:42} {'seconds':>8} {'speedup':>8} {'implied':>8} {'off':>8} {'peak memory':>12}"]
    for row in rows:
        if row.outcome != "done":
            lines.append(f"  {row.name:40} {row.outcome}: {row.reason}")
            continue
        memory = number(row.peak_memory / 2**30 if row.peak_memory else None, " GiB")
        off = "–" if row.off is None else f"{row.off:+.1%}"
        flag = "  FLAGGED: more than 5 % beside what the step times imply" if row.flagged else ""
        lines.append(
            f"  {row.name:40} {number(row.seconds):>8} {number(row.speedup, '×'):>8} "
            f"{number(row.implied_speedup, '×'):>8} {off:>8} {memory:>12}{flag}"
        )
    return "\n".join(lines)


def record(
    args: argparse.Namespace, tiny: bool, device: str, found: Mapping[str, Sequence[Row]]
) -> dict[str, Any]:
    """What is written: all that a reader needs to judge the numbers."""
    commit, dirty = fingerprint.commit()
    packages = fingerprint.versions((*fingerprint.PACKAGES, "triton", "flash-attn", "sageattention"))
    return {
        "version": 1,
        "what": "seconds of the denoising loop alone, with random weights: nothing about quality",
        "scale": "tiny: plumbing only, no result" if tiny else "full",
        "device": device,
        "cuda": torch.version.cuda,
        "packages": packages,
        "commit": commit,
        "dirty": dirty,
        "steps": args.steps,
        "repeats": args.repeats,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "families": {name: [dataclasses.asdict(r) for r in rows] for name, rows in found.items()},
    }


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m tests.bench.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    p.add_argument("--steps", type=int, help="of the schedule: 50, as the paper; 10 at tiny scale")
    p.add_argument("--repeats", type=int, help="loops of each row, after one that warms up: 1; 3 if tiny")
    p.add_argument("--scale", choices=("auto", "full", "tiny"), default="auto")
    p.add_argument("--device", default="auto")
    p.add_argument("--out", type=Path, default=FOLDER, help="folder of the record (results/bench-gpu)")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 where the stock pipeline gave other bits or, at full scale, a row is flagged."""
    args = parser().parse_args(arguments)
    cuda = torch.cuda.is_available()
    device = ("cuda" if cuda else "cpu") if args.device == "auto" else args.device
    tiny = args.scale == "tiny" or (args.scale == "auto" and not device.startswith("cuda"))
    args.steps = args.steps or (10 if tiny else 50)
    args.repeats = args.repeats or (3 if tiny else 1)
    told = fingerprint.described(device)
    if tiny:
        print(f"{told}: tiny twins with random weights. This shows that the plumbing works; no result.")
    else:
        print(f"{told}: true sizes, random weights, {args.steps} steps; times, and nothing about quality.")
    found = {}
    for name in args.families:
        print(name, flush=True)
        lab = Lab(name, tiny, args.steps, device, args.repeats)
        found[name] = Bench(lab).run()
        lab.close()
    for name, rows in found.items():
        print(f"\n{table(name, rows)}")
    slug = re.sub(r"[^a-z0-9]+", "-", fingerprint.device(device).lower()).strip("-")
    file = args.out / f"{slug}{'-tiny' if tiny else ''}.json"
    write_text(file, json.dumps(record(args, tiny, told, found), indent=1) + "\n", mode=0o644)
    print(f"\nwrote {os.path.relpath(file)}")
    rows = [row for own in found.values() for row in own]
    return int(any(r.same_bits is False or (r.flagged and not tiny) for r in rows))


if __name__ == "__main__":
    sys.excepthook = errors.except_hook
    sys.exit(main())
