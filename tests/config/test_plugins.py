"""Plug-ins from outside the tree: a file, or an installed package's entry point."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srbench.analysis.quantities import Scores
from srbench.config import registry, yaml_files
from srbench.config.experiment import Experiment, check
from srbench.engines._parcel import PackedExperiment
from srbench.errors import UserError
from srbench.metrics.base import facts as facts_of
from srbench.metrics.psnr import PSNR
from srbench.planning import plan
from srbench.planning.plan import Unit
from srbench.runtime.runner import Runner
from srbench.runtime.scoring import score_all
from srbench.store.objects import Store
from srbench.store.records import CellRecord, MetricFacts, facts_hash


@pytest.fixture(autouse=True)
def no_files_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests loaded is not known here, nor the other way round."""
    monkeypatch.setattr(registry, "_sources", {})


RULE = """
from srbench.config.registry import plugin_of

@plugin_of("rules")
class Rule:
    step: int = 3

    def fires(self, trace, entered):
        return len(trace) >= self.step

    def window(self, timesteps):
        return self.step, self.step

    def expected(self, timesteps):
        return self.step, "set"
"""
SUITE = """
from srbench.config.registry import plugin_of

@plugin_of("suites")
class Suite:
    animal: str = "cat"

    def list_prompts(self):
        return (f"a {self.animal}",)

    def list_seeds(self):
        return (0, 7)
"""
METRIC = """
import numpy as np
from srbench.config.registry import plugin_of
from srbench.store.records import MetricFacts

@plugin_of("metrics")
class Distance:
    @property
    def facts(self):
        return MetricFacts(name="distance", version=1, unit="", higher_is_better=False,
                           lower_bound=0.0, upper_bound=255.0)

    def __call__(self, video, reference):
        return np.abs(video.astype(float) - reference).mean((1, 2, 3))
"""
FAMILY = """
from srbench.families.wan import Wan
from srbench.config.registry import plugin_of

@plugin_of("families")
class Mine(Wan):
    mood: str = "calm"
"""
ENGINE = """
from srbench.config.registry import plugin_of

@plugin_of("engines")
class Nowhere:
    threads: int = 1

    def run(self, experiment, units, run, store, watch):
        pass
"""


def asked(plugins: list[Path], **changes: Any) -> Experiment:
    """An experiment of the embedded family with a switch, and some plug-ins."""
    path = [{"model": "large", "until": {"kind": "fixed_step", "step": 3}}, {"model": "small"}]
    plain = {
        "name": "trial",
        "family": yaml_files.read("family", "shapes"),
        "suite": {"kind": "prompts", "prompts": ["a cat"]},
        "method": {"large": {"path": [{"model": "large"}]}, "switch": {"path": path}},
        "metric": {"psnr": {"kind": "psnr"}},
        "engine": {"kind": "local"},
        "plugins": [str(p) for p in plugins],
    }
    return check(plain | changes)


def cell_of(method: str) -> CellRecord:
    return CellRecord(
        id=method, family="f", method=method, label=method, method_id=method, path=[], prompt="a",
        prompt_index=0, seed=0, outcome="done", protocol="p", video=method, is_reference=method == "large",
    )  # fmt: skip


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def switch(kind: str) -> dict[str, Any]:
    path = [{"model": "large", "until": {"kind": kind}}, {"model": "small"}]
    return {"method": {"large": {"path": [{"model": "large"}]}, "switch": {"path": path}}}


def test_every_kind_of_part_can_come_from_a_file(tmp_path: Path) -> None:
    texts = {
        "my_rule": RULE,
        "my_suite": SUITE,
        "my_metric": METRIC,
        "my_family": FAMILY,
        "my_engine": ENGINE,
    }
    files = [written(tmp_path / f"{name}.py", text) for name, text in texts.items()]
    made = asked(
        files,
        **switch("my_rule"),
        suite={"kind": "my_suite", "animal": "dog"},
        metric={"mine": {"kind": "my_metric"}},
        family=yaml_files.read("family", "shapes") | {"kind": "my_family", "mood": "wild"},
        engine={"kind": "my_engine"},
    )
    assert made.suite.list_prompts() == ("a dog",) and made.family.mood == "wild"
    parts = (made.method("switch").segments[0].until, made.suite, *made.metrics, made.family, made.engine)
    assert [p.kind for p in parts] == list(texts)
    # the records name their code
    assert all(len(registry.identity(p)["source"]) == 16 for p in parts)


def test_an_edited_plug_in_is_another_video_and_one_that_is_not_used_none(tmp_path: Path) -> None:
    file, unit = tmp_path / "edited.py", Unit(0, "a cat", 0)

    def key(name: str) -> str:
        made = asked([file], **switch("edited"))
        return plan.Keys(made, {}).video(made.method(name), unit)

    written(file, RULE)
    before = {n: key(n) for n in ("large", "switch")}
    assert {n: key(n) for n in before} == before
    written(file, RULE + "# a word\n")
    assert key("large") == before["large"]
    assert key("switch") != before["switch"]
    written(file, RULE)
    assert key("switch") == before["switch"], "the same code again is the same video"


def test_an_edited_metric_scores_again_and_its_old_numbers_are_refused_beside_the_new(tmp_path: Path) -> None:
    file = tmp_path / "my_metric.py"
    videos = {n: np.full((2, 8, 8, 3), v, np.uint8) for n, v in {"large": 0, "small": 9}.items()}
    cells = [cell_of(name) for name in videos]

    def scored(text: str, cells: list[CellRecord]) -> list[CellRecord]:
        registry.load([written(file, text)])
        metric = registry.build("metrics", {"kind": "my_metric"}, "metric")
        return score_all(cells, cells[0], [metric], lambda c: iter([videos[c.method]]))

    once = scored(METRIC, cells)
    wrote = [facts_hash(s.metric.model_dump(mode="json")) for s in once[1].scores]
    assert wrote == list(plan.Wanted(asked([file], metric={"m": {"kind": "my_metric"}}).metrics)("a"))
    edited = scored(METRIC.replace("mean((1, 2, 3))", "mean((1, 2, 3)) * 2"), once)
    assert [c.scores[0].value for c in once] == [0, 9] and [c.scores[0].value for c in edited] == [0, 18]
    with pytest.raises(UserError, match="scores of different code or settings"):
        Scores([once[0], edited[1]])


def test_the_numbers_of_our_own_metrics_that_old_records_have_stay_theirs() -> None:
    now = PSNR().facts
    plain = {k: v for k, v in now.model_dump(mode="json").items() if k != "code"}
    assert facts_of(PSNR(), "a") == {"psnr": now} and MetricFacts(**plain) == now
    assert (
        facts_hash(plain) == facts_hash(now.model_dump(mode="json")) == next(iter(plan.Wanted([PSNR()])("a")))
    )


def test_an_edited_family_encodes_its_texts_again(tmp_path: Path) -> None:
    file = tmp_path / "my_family.py"

    def keys(kind: str, **settings: Any) -> str:
        family = yaml_files.read("family", "shapes") | {"kind": kind} | settings
        made = asked([file], family=family)
        return Runner(made, tmp_path / "run", Store(tmp_path / "store"), threads=1)._text_key("a cat")

    written(file, FAMILY)
    before = keys("my_family")
    assert before == keys("my_family") != keys("my_family", mood="wild")
    written(file, FAMILY + "    def open(self):\n        return None\n")
    assert keys("my_family") != before
    assert keys("wan") == keys("wan", shift=7.0), "ours encode whatever the schedule is"


def test_another_process_gets_the_code_that_this_one_read(tmp_path: Path) -> None:
    """Edited or gone meanwhile, or on a machine that never had the file."""
    file = written(tmp_path / "gone.py", RULE.replace("step: int = 3", "step: int = 5"))
    made = asked([file], **switch("gone"))
    packed = PackedExperiment.of(made)
    file.unlink()
    import pickle

    (tmp_path / "packed").write_bytes(pickle.dumps(packed))
    code = (
        "import pickle, sys\n"
        "made = pickle.load(open(sys.argv[1], 'rb')).open()\n"
        "rule = made.method('switch').segments[0].until\n"
        "print(made.method('switch').id, rule.step, rule.fires([0] * 5, 0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "packed")], capture_output=True, text=True
    )
    assert done.stdout.split() == [made.method("switch").id, "5", "True"], done.stderr


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("my-rule.py", RULE, "letters, digits and _"),
        ("my_rule.txt", RULE, "a file NAME.py"),
        ("srdiffusion.py", RULE, "a name that srbench's own rules do not have"),
        ("twice.py", RULE + RULE.replace("class Rule", "class Second"), "has 2 of rules"),
        (
            "groupless.py",
            RULE.replace('plugin_of("rules")', "plugin").replace("plugin_of", "plugin"),
            "GROUP",
        ),
        ("other.py", RULE.replace("rules", "rulers"), "did you mean rules"),
        ("broken.py", "import no_such_package\n", "no_such_package"),
        ("empty.py", "x = 1\n", "decorated with @plugin_of"),
    ],
)
def test_a_file_that_could_not_be_used_is_refused(name: str, text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        registry.load([written(tmp_path / name, text)])
    assert registry.sources() == ()


def test_two_files_of_one_name_are_refused_and_one_given_twice_is_not(tmp_path: Path) -> None:
    files = [written(tmp_path / folder / "same.py", RULE) for folder in "ab"]
    with pytest.raises(UserError, match="a name of its own for each"):
        registry.load(files)
    registry.load([files[0], files[0]])


def test_a_refused_edit_leaves_the_earlier_code_in_place(tmp_path: Path) -> None:
    file = written(tmp_path / "halfway.py", RULE)
    registry.load([file])
    with pytest.raises(UserError, match="SyntaxError"):
        registry.load([written(file, RULE + "def (")])
    assert registry.build("rules", {"kind": "halfway"}, "until").step == 3


def test_what_a_file_imports_from_beside_it_is_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    written(tmp_path / "beside" / "__init__.py", "from deeper_beside import STEP\n")
    text = RULE.replace("step: int = 3", "step: int = STEP").replace(
        "\nfrom", "\nfrom beside import STEP\nfrom", 1
    )
    file = written(
        tmp_path / "importing.py", text + "    def late(self):\n        import numpy, torch, json\n"
    )

    def made(step: int) -> tuple[int, str]:
        written(tmp_path / "deeper_beside.py", f"STEP = {step}\n")
        registry.load([file])
        importlib.invalidate_caches()
        rule = registry.build("rules", {"kind": "importing"}, "until")
        return rule.step, registry.identity(rule)["source"]

    assert list(registry.own_imports(file.read_bytes())) == ["beside"]
    three, four = made(3), made(40)
    assert (three[0], four[0]) == (3, 40) and three[1] != four[1]
    assert made(3) == three
    (source,) = registry.sources()
    written(tmp_path / "deeper_beside.py", "STEP = 500\n")
    monkeypatch.setattr(registry, "_sources", {})
    with pytest.raises(UserError, match="the same code in every process"):
        registry.load_source(source)  # as a worker on a machine with other files does


def test_a_namespace_package_is_named_by_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an `__init__.py` a package has no file of its own."""
    monkeypatch.syspath_prepend(tmp_path)
    module = written(tmp_path / "spacious" / "inner" / "rule.py", RULE)

    def source() -> str | None:
        registry._package_source.cache_clear()
        return registry.source(importlib.import_module("spacious.inner.rule").Rule)

    before = source()
    assert before == source()
    helper = written(module.with_name("helper.py"), "x = 1\n")
    with_helper = source()
    written(helper, "x = 2\n")
    assert len({before, with_helper, source()}) == 3


PACKAGE = """
import sys
from srbench.config import registry
made = registry.build("rules", {"kind": "patient", "step": 4}, "until")
print("patient" in registry.known("rules"), made.fires([0] * 4, 0), registry.identity(made)["source"])
try:
    registry.build("rules", {"kind": "misnamed"}, "until")
except registry.UserError as error:
    print(error, file=sys.stderr)
"""


def test_an_installed_package_is_found_by_its_entry_point(tmp_path: Path) -> None:
    """As pip leaves it: a package, and beside it a dist-info that names its entry points."""
    module = written(tmp_path / "others_work" / "patient.py", RULE)
    written(module.with_name("__init__.py"), "")
    about = tmp_path / "others_work-1.2.dist-info"
    written(about / "METADATA", "Metadata-Version: 2.1\nName: others-work\nVersion: 1.2\n")
    written(about / "top_level.txt", "others_work\n")
    points = "[srbench.rules]\npatient = others_work.patient:Rule\nmisnamed = others_work.patient:Rule\n"
    written(about / "entry_points.txt", points)

    def tell() -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-B", "-c", PACKAGE],
            env={"PYTHONPATH": f"{Path.cwd()}:{tmp_path}"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    out, refused = tell()
    known, fires, source = out.split(maxsplit=2)
    assert (known, fires) == ("True", "True") and source.startswith("others-work 1.2, ")
    assert "entry point misnamed" in refused and "name the entry point after the module" in refused
    written(module, RULE + "# edited under the same version\n")
    assert tell()[0] != out
