"""The page: complete, self-contained, and deaf to what prompts and labels try to say."""

from __future__ import annotations

import json
import math
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from srbench import video
from srbench.analysis import table
from srbench.analysis.table import rows
from srbench.report import figures, page
from srbench.report.verdicts import verdicts
from srbench.store.records import Score, link_name, linked

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \u2028 ${title} \"' &amp; \x1b[31m"
FPS, FRAMES = 8, 24


def write(make, folder: Path, cells=None, **run_changes) -> str:
    cells = make.cells() if cells is None else cells
    run = make.run(resolved={"family": {"fps": FPS}}, **run_changes)
    tables = table.make(run, cells)
    with page.shards(folder, run, cells, tables):
        pass
    return page.write(folder, run, cells, tables, [figures.Figure("x", "X", "", "no data")]).read_text(
        "utf-8"
    )


def data(folder: Path, name: str):
    """The JSON of a data script, as the browser gets it."""
    text = (folder / "report" / "data" / f"{name}.js").read_text("ascii")
    return json.loads(re.search(r"[{].*[}]", text, re.S).group())


def test_a_seed_that_a_browser_would_round_is_a_word(make, tmp_path):
    seed = 2**63 - 1
    write(make, tmp_path, [c.model_copy(update={"seed": seed}) for c in make.cells(seeds=1)])
    assert data(tmp_path, "index")["seeds"] == [str(seed)]
    assert len(data(tmp_path, "p0000")["seeds"][str(seed)]) == 3
    script = (tmp_path / "report" / "viewer.js").read_text("utf-8")
    assert not re.search(r"Number\([^)]*seed", script)


def test_every_cell_is_in_its_prompts_shard(make, tmp_path):
    write(make, tmp_path)
    assert len(list((tmp_path / "report" / "data").glob("p*.js"))) == 3
    for prompt in range(3):
        seeds = data(tmp_path, f"p{prompt:04}")["seeds"]
        assert {s: len(cells) for s, cells in seeds.items()} == {"0": 3, "1": 3}


@pytest.mark.parametrize("name", [".", "{}", "./../{}", "{}/"])
def test_videos_are_found_however_the_folder_is_named(make, tmp_path, monkeypatch, name):
    """As after `cd RUN; srbench report .`"""
    monkeypatch.chdir(tmp_path)
    cell = make.cells(1, 1)[1]
    at = linked(tmp_path, cell)
    at.parent.mkdir(parents=True)
    at.write_bytes(b"a video")
    write(make, Path(name.format(tmp_path.name if "/../" in name else tmp_path)), [cell])
    (own,) = data(tmp_path, "p0000")["seeds"]["0"].values()
    assert own["video"] == f"report/{at.relative_to(tmp_path)}" and own["reason"] == ""


def test_verdicts_have_the_tables_digits(make, tmp_path):
    """An LPIPS of 0.0065 is no 0.01."""
    cells = [
        c.model_copy(update={"scores": make.scores(24.0, lpips=0.0065)}) if c.method == "small" else c
        for c in make.cells()
    ]
    own = make.named("small", "large", "srd_0.01")
    small = own[0].model_copy(update={"path": [{"denoiser": {"model": "small"}}]})
    run = make.run(methods=(small, *own[1:]))
    (line,) = [v for v in verdicts(run, cells, table.rows(run, cells)) if v.startswith("The small model")]
    assert "LPIPS 0.0065" in line


def test_the_header_names_the_device_as_one(make, tmp_path):
    text = write(make, tmp_path, family="imported", device="of the videos unknown; scored on CPU x86_64")
    assert "family imported · device of the videos unknown; scored on CPU x86_64 · commit" in text


def test_losses_are_prompt_means_without_the_reference(make, tmp_path):
    write(make, tmp_path)
    index = data(tmp_path, "index")
    srd = [m["label"] for m in index["methods"]].index("srd_0.01")
    assert [row[srd] for row in index["loss"]["psnr"]] == pytest.approx([24.05, 25.05, 26.05])
    assert all(row[0] is None for row in index["loss"]["psnr"])
    assert sorted(index["random"]) == [0, 1, 2]


def test_policy_forbids_all_but_own_files(make, tmp_path):
    html = write(make, tmp_path)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html).group(1)
    assert policy.startswith("default-src 'none'; script-src 'self'")
    assert "unsafe" not in policy and "http" not in policy
    assert not re.search(r"\son\w+=|<script(?![^>]* src=)|\sstyle=|javascript:", html)


def test_hostile_words_are_text(make, tmp_path):
    cells = [c.model_copy(update={"prompt": HOSTILE, "label": HOSTILE}) for c in make.cells(1)]
    cells[1] = cells[1].model_copy(update={"outcome": "failed", "reason": HOSTILE})
    html = write(make, tmp_path, cells, methods=(), warnings=(HOSTILE,), asked=[HOSTILE])
    assert "alert(1)" in html
    assert "<script>" not in html and "<img src=x" not in html
    assert data(tmp_path, "p0000")["prompt"] == HOSTILE
    for script in (tmp_path / "report" / "data").iterdir():
        assert script.read_bytes().isascii()


def test_no_network_and_no_absolute_path(make, tmp_path):
    html = write(make, tmp_path)
    texts = [html, *(p.read_text("utf-8") for p in (tmp_path / "report").rglob("*.*s"))]
    for text in texts:
        addresses = set(re.findall(r"https?://[\w./]+", text)) - {"http://www.w3.org/2000/svg"}
        assert not addresses
        assert str(tmp_path) not in text
    for path in re.findall(r'(?:src|href)="([^"#]+)"', html):
        assert (tmp_path / path).exists() or path.startswith("table."), path


def test_a_numbers_details_are_of_its_own_row(make):
    psnr = make.psnr.model_copy(update={"upper_bound": 100.0})
    cells = [make.cell("large", p, 0) for p in range(2)]
    for name, frames in (("small", (20.0, 30.0)), ("near", (100.0, 50.0))):
        score = make.scored(psnr, sum(frames) / 2, frames, reference="r")
        cells += [make.cell(name, p, 0, scores=(score,)) for p in range(2)]
    run = make.run(methods=())
    table = rows(run, cells)
    told = {r.method: dict(page.details(run, r, r["psnr"]))["quantity"] for r in table if not r.is_reference}
    assert "2 of 4 frames at 100 dB" in told["near"]
    assert "frames at 100" not in told["small"]
    # below the table, where the label says whose it is
    assert any("near: 2 of 4 frames at 100 dB" in note for note in page.table_notes(table))


@pytest.mark.parametrize(
    "empty", [None, "", {}, [], (), {"switch": None}, {"switch": {"seconds": ""}}, [None]]
)
def test_the_protocols_list_has_each_term_once_and_none_without_words(make, empty):
    family = {"kind": "wan", "device": "auto", "memory": empty, "price": {"step": 0.1, "switch": empty}}
    facts = page.protocol_facts(make.run(resolved={"family": family}), [])
    terms = dict(facts)
    assert len(terms) == len(facts)
    assert terms["price"] == "step 0.1"
    assert terms["device"].startswith("NVIDIA H100")
    assert "memory" not in terms
    assert all(words.strip() and " ," not in words for words in terms.values())


def test_warnings_stand_above_all(make, tmp_path):
    html = write(make, tmp_path, warnings=("random weights: plumbing only",))
    assert html.index("Warning: random weights: plumbing only") < html.index('class="verdicts"')


def test_dimensions_are_a_table_and_a_loss(make, tmp_path):
    sharp = make.dimension("shapes/sharpness", "quality")
    level = {"large": 0.8, "small": 0.5, "srd_0.01": 0.7}
    cells = [
        c.model_copy(
            update={"scores": (*c.scores, Score(metric=sharp, value=level[c.method] + c.prompt_index / 10))}
        )
        for c in make.cells()
    ]
    html = write(make, tmp_path, cells)
    assert '<table id="dimensions">' in html and 'data-place="dimensions,0,0"' in html
    index = data(tmp_path, "index")
    assert [row[1] for row in index["loss"]["shapes/sharpness"]] == pytest.approx([-0.3] * 3)
    assert next(m["difference"] for m in index["metrics"] if m["name"] == "shapes/sharpness")


def test_missing_video_says_why(make, tmp_path):
    cells = make.cells(1, 1)
    cells[2] = cells[2].model_copy(update={"outcome": "failed", "reason": "out of memory"})
    html = write(make, tmp_path, cells)
    shown = data(tmp_path, "p0000")["seeds"]["0"]
    assert {(c["outcome"], c["reason"]) for c in shown.values()} == {
        ("done", "its video is not in the run's folder"),
        ("failed", "out of memory"),
    }
    assert "2 of 3 cells done: 1 failed" in html
    assert "out of memory" in html


def test_written_again_it_holds_nothing_old(make, tmp_path):
    write(make, tmp_path)
    write(make, tmp_path, make.cells(1, 1))
    assert sorted(p.name for p in (tmp_path / "report" / "data").iterdir()) == ["index.js", "p0000.js"]


# In a browser


@pytest.fixture
def browser():
    """Headless Chromium, without any leave that a user's has not."""
    api = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs chromium on the PATH (Debian: apt-get install chromium)")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture
def site(make, tmp_path):
    """A run of 2 prompts with videos, its first prompt hostile."""
    noise = np.random.default_rng(0)
    cells = [c.model_copy(update={"prompt": HOSTILE}) if not c.prompt_index else c for c in make.cells(2, 1)]
    for cell in cells:
        path = linked(tmp_path, cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = noise.integers(0, 256, (FRAMES, 48, 64, 3), dtype=np.uint8)
        video.write_lossless(path, pixels, FPS)
    write(make, tmp_path, cells)
    return tmp_path


def until(view, ask, tries: int = 3000):
    """Poll: the page's policy forbids what Playwright's own waiting does (eval).

    ask: JavaScript, or a function.  tries: 0.1 s and more each, so that a busy machine has
    minutes and a page that never gets there ends the test.
    """
    for _ in range(tries):
        if got := ask() if callable(ask) else view.evaluate(ask):
            return got
        view.wait_for_timeout(100)
    raise AssertionError(f"never true: {ask}")


def opened(chromium, site: Path, hash_: str):
    view = chromium.new_page()
    view.set_default_timeout(600_000)
    view.troubles = []
    view.on("console", lambda m: view.troubles.append(m.text) if m.type in ("error", "warning") else None)
    view.on("pageerror", lambda e: view.troubles.append(str(e)))
    view.on("dialog", lambda d: (view.troubles.append(d.message), d.dismiss()))
    view.on("request", lambda r: view.troubles.append(r.url) if not r.url.startswith("file:") else None)
    view.goto(f"file://{site}/report.html{hash_}")
    until(view, "() => document.querySelectorAll('.tile[data-frame]').length === 3")
    return view


FRAMES_NOW = "() => [...document.querySelectorAll('.tile')].map(t => Number(t.dataset.frame))"
WATCH = """(ms) => new Promise(done => {
  const seen = [], end = performance.now() + ms;
  const look = () => {
    const tiles = [...document.querySelectorAll('.tile')];
    seen.push({
      at: performance.now(),
      frames: tiles.map(t => Number(t.dataset.frame)),
      times: tiles.map(t => t.querySelector('video').currentTime),
      seeking: tiles.some(t => t.querySelector('video').seeking),
    });
    performance.now() < end ? requestAnimationFrame(look) : done(seen);
  };
  look();
})"""


def while_calm(seen, span=250, gap=1000 / FPS / 2):
    """The samples before which, for `span` ms, the browser was never held up for half a frame."""
    stalls = [b["at"] for a, b in pairwise(seen) if b["at"] - a["at"] > gap]
    return [s for s in seen if not any(0 <= s["at"] - stall < span for stall in stalls)]


def apart(values) -> float:
    return max(values) - min(values)


def test_link_sort_step_and_play(browser, site):
    view = opened(browser, site, "#prompt=0&seed=0&method=srd_0.01-id-srd_0&frame=6")
    until(view, f"() => ({FRAMES_NOW})().every(f => f === 6)")
    assert view.evaluate("() => document.querySelector('.chosen').dataset.method") == "srd_0.01-id-srd_0"
    assert view.text_content("#prompt-title") == HOSTILE

    view.click("#forward")
    until(view, f"() => ({FRAMES_NOW})().every(f => f === 7)")
    assert "frame=7" in until(view, "() => location.hash.includes('frame=7') && location.hash")

    view.click("thead th:nth-child(2) button")
    first = "() => [...document.querySelectorAll('tbody tr')].map(r => r.cells[0].textContent)"
    assert view.evaluate(first) == ["srd_0.01", "small", "large"], "gaps last, best first"
    view.focus("tbody td .number")
    assert "protocol" in view.text_content("#details")
    view.keyboard.press("Escape")
    assert view.evaluate("() => document.getElementById('details').hidden")

    view.click("#play")
    for _ in range(3):
        (now, *_) = view.evaluate(FRAMES_NOW)
        until(view, f"() => ({FRAMES_NOW})()[0] !== {now}")
    calm = []
    for _ in range(24):  # a busy machine holds the browser up: watch until it was calm for a while
        seen = view.evaluate(WATCH, 5000)
        calm += [s for s in while_calm(seen) if not s["seeking"] and apart(s["frames"]) < FRAMES - 3]
        if len(calm) >= 5:
            break
    assert view.troubles == []
    if len(calm) < 5:
        pytest.skip("the browser was held up for two minutes, so nothing can be said of sync")
    assert max(apart(s["times"]) for s in calm) * FPS <= 1, "one clock"
    assert max(apart(s["frames"]) for s in calm) <= 1, "in step"


def test_difference_is_exact(browser, site):
    """Pixels can't be read back from disk, so a picture of the screen is compared."""
    view = opened(browser, site, "#prompt=1&seed=0&view=difference&frame=5")
    until(view, f"() => ({FRAMES_NOW})().every(f => f === 5)")
    view.select_option("#gain", "2")
    tile = view.locator(".tile[data-method^='small'] canvas")
    tile.evaluate(
        "c => { c.style.cssText = 'position:fixed;inset:0;width:64px;height:48px;z-index:99'; "
        "document.body.append(c) }"
    )
    large, small = (
        video.read(site / "videos" / link_name(1, 0, name, f"id-{name}"))[0][5].astype(int)
        for name in ("large", "small")
    )
    expected = np.minimum(255, 2 * abs(small - large))

    def shown() -> bool:
        clip = {"x": 0, "y": 0, "width": 64, "height": 48}
        view.screenshot(path=site / "shot.png", clip=clip, type="png")
        return np.array_equal(video.read(site / "shot.png")[0][0], expected)

    until(view, shown, tries=600)
    assert view.troubles == []


def test_axe_finds_nothing_serious(browser, site):
    package = pytest.importorskip("axe_playwright_python")  # it brings axe-core's script
    script = Path(package.__file__).parent / "axe.min.js"
    view = opened(browser, site, "#prompt=1&seed=0")
    for scheme in ("light", "dark"):
        view.emulate_media(color_scheme=scheme)
        view.evaluate("() => { for (const d of document.querySelectorAll('details')) d.open = true; }")
        view.focus("tbody td .number")
        view.evaluate(script.read_text("utf-8"))
        found = view.evaluate("() => axe.run().then(r => r.violations)")
        serious = [v for v in found if v["impact"] in ("serious", "critical")]
        assert not serious, [(v["id"], [n["html"] for n in v["nodes"]][:3]) for v in serious]


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen(browser, site, width):
    view = opened(browser, site, "#prompt=1&seed=0")
    view.set_viewport_size({"width": width, "height": 800})
    assert view.evaluate("() => document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ((), "[]"),
        ((0.0, 0.0), "[0.0,0.0]"),
        ((23.456789, 0.1234567), "[23.457,0.123]"),
        ((0.000123456, -0.0000987654), "[0.00012346,-0.00009877]"),
        ((100.0, 99.98765), "[100.0,99.99]"),
        ((1.0, math.nan, math.inf), "[1.0,null,null]"),
        ((5e-324,), None),
        ((1.5e300,), None),
    ],
)
def test_frames_have_five_digits_of_the_largest(frames, text):
    written = page._frames(frames)
    told = json.loads(written)
    assert len(told) == len(frames)
    if text is None:
        assert told == pytest.approx(frames, rel=1e-4)
    else:
        assert told == json.loads(text)
