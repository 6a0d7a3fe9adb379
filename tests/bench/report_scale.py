"""How the report bears VBench's size: 4,720 videos × 16 methods, synthetic records, no videos.

`make bench-report`, or python -m tests.bench.report_scale [FOLDER] [--prompts 944 --seeds 5]:
writes FOLDER once (2 GB), then prints the seconds and the peak memory of
`srbench report FOLDER` and of its parts, of a plan of as many cells and of the scan
that a resuming run begins with, and what a headless browser needs for the page where playwright
and chromium are there. Seconds mean something on a machine that does nothing else; CPU seconds
are told beside them. Wanted on two such cores: tables and figures in 30 s and 2 GiB, the plan in
5 s, the scan in 10 s, with its index or without.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srbench.store.records import CellRecord

ROOT = Path(__file__).parents[2]
STEPS, FRAMES, METHODS, PROTOCOL = 50, 81, 16, "scale-protocol"
METRICS = {
    "psnr": {"unit": "dB", "higher_is_better": True},
    "ssim/gauss11-valid": {"unit": "", "higher_is_better": True, "upper_bound": 1.0},
    "lpips/alex-spatial": {"unit": "", "higher_is_better": False, "upper_bound": 1.0},
}
DIMENSIONS = {f"suite/d{i:02}": "quality" if i < 7 else "semantic" for i in range(16)}


def method(i: int) -> dict[str, Any]:
    """Reference, small, four with fewer steps, five fixed switches, five δ."""
    rule = {"kind": "fixed_step", "step": 2 * i} if i < 11 else {"kind": "srdiffusion", "delta": i / 1000}
    if i < 6:
        path = [{"denoiser": {"model": "small" if i == 1 else "large"}, "until": {"kind": "always"}}]
    else:
        path = [{"denoiser": {"model": "large"}, "until": rule}, {"denoiser": {"model": "small"}}]
    name = ["large", "small"][i] if i < 2 else f"method_{i:02}"
    steps = 10 * i if 2 <= i < 6 else None
    return {
        "name": name,
        "label": name,
        "id": f"id{i:02}",
        "is_reference": i == 0,
        "path": path,
        "steps": steps,
    }


def cell(m: dict[str, Any], i: int, prompt: int, seed: int, rng: random.Random) -> dict[str, Any]:
    """One record as a run writes it: a trace with D, step times, scores frame by frame."""
    switch = STEPS if len(m["path"]) == 1 else 5 + rng.randrange(20)
    models = ["small" if i == 1 or s >= switch else "large" for s in range(STEPS)]
    steps = [
        {
            "index": s,
            "timestep": 1000.0 - 20 * s,
            "next_timestep": 980.0 - 20 * s,
            "sigma": 1 - s / STEPS,
            "denoiser": models[s],
            "model": models[s],
            "change": dict.fromkeys(("model_output", "x0", "eps", "latent"), rng.random() / (s + 1))
            if s
            else None,
            "calls_computed": 2,
            "calls_reused": 0,
        }
        for s in range(STEPS)
    ]
    level = rng.random()
    scores = [score(name, facts, 20 * level, rng) for name, facts in METRICS.items() if i]
    scores += [
        {"metric": dimension(name, group), "value": level}
        for k, (name, group) in enumerate(DIMENSIONS.items())
        if k % 4 == prompt % 4
    ]
    return {
        "id": f"{i:02}-{prompt:04}-{seed}",
        "family": "wan",
        "method": m["name"],
        "label": m["label"],
        "method_id": m["id"],
        "path": m["path"],
        "is_reference": i == 0,
        "prompt": f"prompt {prompt}: a sentence of the usual length about a thing that moves somewhere",
        "prompt_index": prompt,
        "seed": seed,
        "outcome": "done",
        "video": "0" * 64,
        "protocol": PROTOCOL,
        "trace": {"steps": steps},
        "step_seconds": [16.0 if name == "large" else 4.0 for name in models],
        "stages": [{"name": "encode", "seconds": 0.5}, {"name": "decode", "seconds": 3.0}],
        "scores": scores,
    }


def score(name: str, facts: dict[str, Any], value: float, rng: random.Random) -> dict[str, Any]:
    frames = [value + rng.random() for _ in range(FRAMES)]
    return {"metric": {"name": name, "version": 1, **facts}, "value": value, "per_frame": frames}


def dimension(name: str, group: str) -> dict[str, Any]:
    facts = {"unit": "", "higher_is_better": True, "needs_reference": False, "group": group}
    return {"name": name, "version": 1, **facts}


def write(folder: Path, prompts: int, seeds: int) -> None:
    """The run's folder; nothing is done where it is already there."""
    if (folder / "run.json").exists():
        return
    (folder / "cells").mkdir(parents=True)
    rng = random.Random(0)
    methods = [method(i) for i in range(METHODS)]
    for prompt in range(prompts):
        for seed in range(seeds):
            for i, m in enumerate(methods):
                record = cell(m, i, prompt, seed, rng)
                text = CellRecord(**record).model_dump_json(indent=1)
                (folder / "cells" / f"{record['id']}.json").write_text(text)
    run = {
        "experiment": "scale",
        "run": "scale",
        "family": "wan",
        "asked": [],
        "resolved": {"family": {"fps": 16}},
        "store": "store",
        "methods": methods,
        "prompts": [f"prompt {p}" for p in range(prompts)],
        "seeds": list(range(seeds)),
        "protocol": PROTOCOL,
        "commit": None,
        "dirty": None,
        "packages": {},
        "device": "none",
        "threads": 1,
        "started": "",
    }
    (folder / "run.json").write_text(json.dumps(run))


PARTS = """
import gc, io, resource, sys, time
from pathlib import Path
from rich.console import Console
from srbench.report import export, figures, terminal; from srbench.analysis import reading, table
began, run = time.monotonic(), Path(sys.argv[1])
def told(part):
    global began
    now, used = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    print(f"  {part}: {now - began:.1f} s, so far {used.ru_utime + used.ru_stime:.1f} s of CPU, "
          f"peak {used.ru_maxrss / 2**20:.2f} GiB")
    began = now
record, cells = reading.read(run)
gc.freeze()
told("records read")
tables = table.make(record, cells)
told("tables")
terminal.show(record, cells, tables.main, Console(file=io.StringIO()))
export.write(run, record, cells, tables)
told("as CSV, Markdown, LaTeX and Parquet")
figures.draw(run / "figures", record, cells, tables.main)
told("figures")
"""
SCAN = """
import sys, time
from pathlib import Path
from srbench.store.records import scan
for _ in range(2):
    began = time.monotonic()
    found = scan(Path(sys.argv[1]))
    print(f"  {len(found)} cells: {time.monotonic() - began:.1f} s")
"""
METHOD = """\
# @package method.{name}
label: {name}
path:
  - {{model: large, until: {{kind: srdiffusion, delta: {delta}}}}}
  - {{model: small}}
"""


def plan(folder: Path) -> list[str]:
    """The command that plans 16 methods on VBench's prompts, 14 of them δ of its own."""
    names = [f"srd_{i:02}" for i in range(1, METHODS - 1)]
    (folder / "conf" / "method").mkdir(parents=True)
    for i, name in enumerate(names, 1):
        (folder / "conf" / "method" / f"{name}.yaml").write_text(METHOD.format(name=name, delta=i / 1000))
    where = [f"results={folder}/results", f"store={folder}/store"]
    methods = f"method=[large,small,{','.join(names)}]"
    asked = ["family=wan21_480p", "suite=vbench", methods, "metric=[]", "dry_run=true", *where]
    return ["-m", "srbench", "--config-dir", str(folder / "conf"), *asked]


def timed(what: str, command: Sequence[str | Path], memory: bool = True) -> None:
    """Run a command of this Python; its wall and CPU seconds, and the largest process's memory."""
    print(what, flush=True)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    quiet = None if "-c" in command else subprocess.DEVNULL
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=quiet)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = f", largest process so far {after.ru_maxrss / 2**20:.2f} GiB" if memory else ""
    print(f"  whole: {wall:.1f} s, {cpu:.1f} s of CPU{peak}", flush=True)


def browse(folder: Path) -> None:
    """First paint, and the page's memory after three prompts were opened."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        flags = ["--no-sandbox", "--disable-gpu", "--enable-precise-memory-info"]
        view = playwright.chromium.launch(executable_path=program, args=flags).new_page()
        view.goto(f"file://{folder.resolve()}/report.html")
        view.wait_for_timeout(3000)
        paint = view.evaluate(
            "() => performance.getEntriesByType('paint').map(e => [e.name, Math.round(e.startTime)])"
        )
        print("paint, ms:", paint)
        for prompt in (3, 200, 500):
            view.evaluate(f"() => {{ location.hash = '#prompt={prompt}&seed=0'; }}")
            view.wait_for_timeout(1500)
        view.select_option("#order", "worst")
        client = view.context.new_cdp_session(view)
        client.send("Performance.enable")
        got = {m["name"]: m["value"] for m in client.send("Performance.getMetrics")["metrics"]}
        print(f"heap {got['JSHeapUsedSize'] / 2**20:.0f} MiB, {got['Nodes']:.0f} nodes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "results" / "bench_report")
    parser.add_argument("--prompts", type=int, default=944)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    print(f"{given.prompts * given.seeds * METHODS:,} cells in {given.folder}", flush=True)
    write(given.folder, given.prompts, given.seeds)
    timed("tables and figures", ["-c", PARTS, given.folder.resolve()])
    timed("the whole report, the page with it", ["-m", "srbench.report", given.folder.resolve()])
    timed("scan of a resuming run, without and with an index", ["-c", SCAN, given.folder.resolve()], False)
    (given.folder / "cells.jsonl").unlink()
    with tempfile.TemporaryDirectory() as empty:
        timed("plan of 4,720 videos × 16 methods", plan(Path(empty)), False)
    size = sum(p.stat().st_size for p in (given.folder / "report" / "data").iterdir())
    index = (given.folder / "report" / "data" / "index.js").stat().st_size
    print(f"page's data: {size / 2**20:.0f} MiB, of which the index {index / 2**20:.1f} MiB")
    if importlib.util.find_spec("playwright"):
        browse(given.folder)


if __name__ == "__main__":
    main()
