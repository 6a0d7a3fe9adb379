"""What a user gets wrong is told in a few lines, at once, and nothing is written; never a traceback."""

from __future__ import annotations

import copy
import errno
import json
import math
import os
import pickle
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from srbench import __main__ as door
from srbench import errors
from srbench.config import fingerprint, overrides, yaml_files
from srbench.errors import CannotWrite, UserError, UserErrors, cannot_write
from srbench.families import _checkpoint
from srbench.planning import cost
from srbench.store.objects import Store, write_atomic

MODEL = Path(door.__file__).parent / "shapes" / "model"


def composed(*overrides: str) -> dict[str, Any]:
    """The shipped experiment as the door composes it."""
    with hydra.initialize_config_dir(str(yaml_files.FOLDER), version_base=None):
        return door.compose(hydra.compose("config", ["+experiment=shapes_delta_sweep", *overrides]))


Refused = Callable[..., str]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path) -> Refused:
    """Run the command in this process; what it says, once it is sure that it refused and wrote nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(door, "_codes", [])
    monkeypatch.setattr(errors, "leave", sys.exit)  # not this process

    def run(*arguments: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        monkeypatch.setattr(sys, "argv", ["srbench", *arguments])
        with pytest.raises(SystemExit) as left:
            errors.finish(door.main)
        told = capsys.readouterr()
        assert left.value.code == 2, told
        assert told.out == "" and told.err.startswith("srbench: ")
        assert "Traceback" not in told.err and len(told.err.splitlines()) <= 12
        assert sorted(tmp_path.rglob("*")) == before
        return told.err

    return run


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["+experiment=shapes_delta_swep"], ["'shapes_delta_swep'", "did you mean shapes_delta_sweep"]),
        (["method=[large,smal]"], ["method 'smal'", "did you mean small?"]),
        (["family=shpes"], ["family 'shpes'", "did you mean shapes?"]),
        (["suite=prompt"], ["suite 'prompt'", "did you mean prompts?"]),
        (["metric=[pnsr]"], ["metric 'pnsr'", "did you mean psnr"]),
        (["engine=lokal"], ["engine 'lokal'", "did you mean local?"]),
        (["engine.wrkers=2"], ["engine.wrkers=2", "did you mean workers?"]),
        (["+sed=2"], ["key sed", "a key of an experiment"]),
        (["engine.workers=many"], ["engine.workers = 'many'", "a valid integer"]),
        (["suite.seeds=[0,-1]"], ["suite.seeds.1 = -1", "greater than or equal to 0"]),
        (["suite.seeds=-1"], ["suite.seeds = -1"]),
        (["method.srdiffusion.delta=0"], ["given:    method.srdiffusion.delta = 0", "greater than 0"]),
        (["method.srdiffusion.delta=-0.5"], ["srdiffusion.delta = -0.5", "change method.srdiffusion.delta"]),
        (["method.srdiffusion.min_steps=50"], ["srdiffusion.path.0.until", "before the last of 50 steps"]),
        (["method=[large,fixed_step]", "method.fixed_step.step=51"], ["step: 51", "the last of 50 steps"]),
        (["family.device=gpu"], ["family.device = 'gpu'", "one of auto, cpu, cuda"]),
        (["family.device=cuda:x"], ["family.device = 'cuda:x'", "cuda:1"]),
        (["keep=trunk"], ["keep = 'trunk'", "forks, all, none or window(a,b)"]),
        (["keep='window(9,3)'"], ["window(9,3)", "1 ≤ a ≤ b"]),
        (["name=../elsewhere"], ["name = '../elsewhere'", "no slash"]),
        (["run=a/b"], ["run = 'a/b'", "no slash"]),
        (["dry_run=perhaps"], ["dry_run = 'perhaps'", "a valid boolean"]),
        (["method=[large,"], ["'method=[large,'", "brackets closed"]),
        (["suite=prompts"], ["suite.prompts is missing", "set suite.prompts="]),
        (["method=0"], ["method=0", "must be a string or a list"]),
        (["reference=smal"], ["the reference 'smal'"]),
        (["method.srdiffusion.delta=0.02", "method=[large]"], ["no srdiffusion in the list method=[…]",
                                                               "'method=[large,srdiffusion]'"]),
        (["metric.psnr.cap=90", "metric=[]"], ["no psnr in the list", "add it, as 'metric=[psnr]'"]),
        (["method.srdifusion.delta=1"], ["a key of method\n", "did you mean srdiffusion?"]),
        (["preset=paper"], ["given:    preset=paper\nexpected: a + before it", "write +preset=paper\n"]),
        (["preset=papr"], ["write +preset=papr\n", "did you mean paper?"]),
        (["expriment=table6"], ["did you mean +experiment"]),
        (["+experiment=wan_480"], ["did you mean wan480_delta_sweep?"]),
        (["method=[large,mine]"], ["method 'mine'", "or method/NAME.yaml in the folder of --config-dir"]),
        (["--config-dir", "nowhere", "method=[large,mine]"], ["given:    --config-dir nowhere\n"]),
        (["suite.extended=a.json"], ["a key of suite as it is: kind,", "set suite=prompts or suite=v"]),
        (["engine.address=auto"], ["set engine=ray, which has it"]),
        (["family.large.revision=null"], ["known: source, subfolder; to add", "write +family.large.rev"]),
        (["results=a", "engine.threads=1_0"], ["engine.threads=1_0, where Hydra reads 1_0 as 10"]),
        (["suite.prompts=[the dogs' house]"], ["given:    suite.prompts=[the dogs' house]\n"]),
        (["method.large.x=数据"], ["write 'method.large.x=\"数据\"'"]),
        (["method.大.label=x"], ["a key of letters, digits and dots"]),
        (["suite=prompts", "suite.prompts=1984"], ["suite.prompts = 1984 (No such file", "suite.prompts=["]),
        (["suite.seeds=2,3"], ["suite.seeds=2,3", "-m"]),
        (["suite.prompts=my.txt"], ["suite.prompts = 'my.txt'", "how many captions,", "suite=prompts"]),
        (["suite.prompts=[1]"], ["suite.prompts: '1'\n", "a sentence of the shapes world", "'a red circle"]),
        (["suite.prompts=0"], ["given:    suite.prompts = 0\nexpected: greater than or equal to 1\n"]),
        (["suite.seeds=few"], ["how many seeds, or a list of them"]),
        (["shard=3"], ["given:    shard = '3'\n", "i/n with 1 ≤ i ≤ n, as 3/16"]),
        (["method=[large,distilled]"], ["FILL-IN/FILL-IN", "set method.distilled.revision"]),
        (["method=[large,distilled]", "method.distilled.sampler.solver=dpm"], ["unipc or euler"]),
        (["method=[large,distilled]", "method.distilled.name=a name"], ["given:    method.distilled.name ="]),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_name_and_what_to_do(
    refused: Refused, words: list[str], told: list[str]
) -> None:
    said = refused(*words)
    assert all(part in said for part in told), said


@pytest.mark.parametrize("words", [[], ["dry_run=true"], ["family.large.source=/nowhere"]])
def test_a_gpu_that_is_not_there(refused: Refused, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setattr(fingerprint, "may_have_gpu", lambda: False)
    said = refused("family.device=cuda", *words)
    assert "family.device=cuda, where the system shows no driver" in said and "family.device=auto" in said
    assert ("/nowhere" in said) == ("family.large.source=/nowhere" in words)


def test_the_default_family_has_a_twin_too() -> None:
    assert door.settle(composed("family.scale=tiny")).family.large.is_tiny


def test_mistakes_of_every_kind_are_told_in_one_message(refused: Refused) -> None:
    said = refused("method=[large,srdifusion]", "engine.thred=4", "metric.psnr.cap=-3", "family.dtype=float8")
    assert "4 mistakes" in said
    assert all(x in said for x in ("'srdifusion'", "engine.thred=4", "metric.psnr.cap = -3", "family.dtype"))


def test_a_yaml_of_ones_own_that_is_none_is_told_with_file_and_line(refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "my_conf" / "method" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package method.mine\nlabel: mine\npath:\n  - model: large\n - model: small\n")
    said = refused("--config-dir", "my_conf", "method=[large,mine]", "engine.workers=many")
    assert f"line 5 of {file}: while parsing" in said and "expected YAML" in said
    assert "2 mistakes" in said and "engine.workers = 'many'" in said


def test_a_yaml_of_ones_own_without_its_package_line(refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "my_conf" / "method" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("label: mine\npath: [{model: large}]\n")
    said = refused("--config-dir=my_conf", "method=[large,mine]")
    assert "given:    method.label = 'mine', method.path = [{" in said
    assert "let the first line be `# @package method.NAME`" in said


def test_a_missing_file_and_a_wrong_number_are_told_together(refused: Refused) -> None:
    said = refused("family.large.source=/nowhere", "method.srdiffusion.delta=-1")
    assert "2 mistakes" in said and "/nowhere" in said and "delta = -1" in said


def test_a_sweep_is_refused_before_its_first_job_for_a_mistake_in_its_last(refused: Refused) -> None:
    said = refused("-m", "method.srdiffusion.delta=0.1,0.2,-3")
    assert "method.srdiffusion.delta = -3" in said


def test_a_runs_folder_is_answered_with_the_command_for_its_report(refused: Refused, tmp_path: Path) -> None:
    run = tmp_path / "results a=b" / "12345_7"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    said = refused("results a=b/12345_7")
    assert "for its report write: srbench report 'results a=b/12345_7'" in said


def test_a_word_that_no_file_could_be_named_by_is_refused(refused: Refused) -> None:
    assert "a" * 100 in refused("a" * 5000)
    assert "a folder that is there" in refused("--config-dir", "a" * 5000)


@pytest.mark.parametrize("name", ["my conf (v2)", "a, b=c", "配置", "it's ${x}", 'a "b"'])
def test_a_folder_of_any_name_may_hold_ones_yaml(tmp_path: Path, name: str) -> None:
    (tmp_path / name / "method").mkdir(parents=True)
    path = "label: mine\npath: [{model: small}]\n"
    (tmp_path / name / "method" / "mine.yaml").write_text(f"# @package method.mine\n{path}")
    words = ["method=[large,mine]", "method.mine.label=of mine", "method.no.x=1"]
    with pytest.raises(UserError) as refused:
        overrides.checked([*words, "--config-dir", str(tmp_path / name)], door.settle)
    assert str(refused.value).count("given:") == 1 and "method.no.x=1" in str(refused.value)


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("method.small.steps=20", "++method.small.steps=20"),
        ("method.small.sampler.shift=8", "++method.small.sampler.shift=8"),
        ("engine.threads=2", "engine.threads=2"),
        ("run=12345_7", 'run="12345_7"'),
    ],
)
def test_what_a_yaml_may_have_but_does_not_name_can_be_set(typed: str, read: str) -> None:
    """Hydra alone would want a + before it, which is for the user no different setting."""
    assert overrides.checked([typed], door.settle) == [read]


def test_so_can_each_value_of_a_sweep() -> None:
    words = ["method.small.steps=10,20", "run=1_0,2_0", "-m"]
    read = ["++method.small.steps=10,20", 'run="1_0","2_0"', "-m"]
    assert overrides.checked(words, door.settle) == read


def test_prompts_that_are_none(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n  \n")
    (tmp_path / "latin.txt").write_bytes("ein grüner Kreis".encode("latin-1"))
    assert "no prompt in" in refused("suite=prompts", "suite.prompts=empty.txt")
    assert "a UTF-8 text file" in refused("suite=prompts", "suite.prompts=latin.txt")
    assert "No such file" in refused("suite=prompts", "suite.prompts=missing.txt")
    assert "directory" in refused("suite=prompts", f"suite.prompts={tmp_path}")


# -- weights


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the embedded family that a test may spoil."""
    return Path(shutil.copytree(MODEL, tmp_path / "model"))


def spoiled(model: Path) -> list[str]:
    return [
        f"{m.got} | {m.expected}" for m in _checkpoint.mistakes(model / "transformer", "family.large.source")
    ]


def test_the_embedded_family_is_whole(model: Path) -> None:
    parts = ("transformer", "transformer_2", "vae", "text_encoder")
    assert all(_checkpoint.mistakes(model / part, part) == [] for part in parts)
    assert len(_checkpoint.tensors(model / "transformer")) > 200


def test_weights_cut_short_are_torn_wherever_the_cut_is(model: Path) -> None:
    file = model / "transformer" / "diffusion_pytorch_model.safetensors"
    whole = file.read_bytes()
    for length in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        (told,) = spoiled(model)
        assert str(file) in told and ("torn" in told or "as its header says" in told)
    file.write_bytes(whole + b"x")
    assert "as its header says" in spoiled(model)[0]


def test_weights_of_another_size_than_config_says(model: Path) -> None:
    config = json.loads((model / "transformer" / "config.json").read_text())
    for changed in ({"num_attention_heads": 5}, {"num_layers": 40}, {"ffn_dim": 13824}, {"patch_size": 2}):
        (model / "transformer" / "config.json").write_text(json.dumps(config | changed))
        assert len(spoiled(model)) == 1, changed
    (model / "transformer" / "config.json").write_text("{")
    assert "torn or no JSON" in spoiled(model)[0]


def test_a_pickle_is_never_opened(model: Path) -> None:
    folder = model / "transformer"
    for file in folder.glob("*.safetensors"):
        file.unlink()
    assert "no weights in" in spoiled(model)[0]
    (folder / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))
    assert "a pickle" in spoiled(model)[0] and "safetensors" in spoiled(model)[0]


def test_a_shard_that_the_index_names_has_to_be_there(model: Path) -> None:
    folder = model / "transformer"
    file = folder / "diffusion_pytorch_model.safetensors"
    shards = {name: "shard-1.safetensors" for name in _checkpoint.header(file)}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert "1 of 1 shards of transformer are missing, as shard-1.safetensors" in spoiled(model)[0]
    file.rename(folder / "shard-1.safetensors")
    assert spoiled(model) == []


@given(st.binary(max_size=60) | st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3)))
def test_any_bytes_for_a_header_are_a_mistake_and_no_traceback(content: Any) -> None:
    import tempfile

    if not isinstance(content, bytes):
        plain = json.dumps(content).encode()
        content = struct.pack("<Q", len(plain)) + plain
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.safetensors").write_bytes(content)
        try:
            assert all(isinstance(s, tuple) for s in _checkpoint.tensors(Path(folder)).values())
        except _checkpoint.Fault as fault:
            assert len(fault.args) == 2


def test_the_door_names_the_weights_at_fault(refused: Refused, model: Path) -> None:
    with open(model / "transformer_2" / "diffusion_pytorch_model.safetensors", "ab") as file:
        file.write(b"more")
    said = refused(f"family.small.source={model}")
    assert "family.small.source" in said and "transformer_2" in said and "as its header says" in said


# -- folders and disks


def test_a_file_where_a_folder_should_be(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    assert "results: taken" in refused("results=taken", "store=elsewhere")
    assert "store: taken" in refused("store=taken/store")


@pytest.mark.skipif(not os.path.isdir("/sys/kernel"), reason="Linux has folders that nobody may write to")
def test_a_folder_that_nobody_may_write_to(refused: Refused) -> None:
    if os.access("/sys/kernel", os.W_OK):
        pytest.skip("this system lets us write to /sys")
    assert "/sys/kernel cannot" in refused("results=/sys/kernel/srbench", "store=elsewhere")


def test_a_store_and_a_run_of_a_newer_version(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "version").write_text("2\n")
    assert "the store store of version 2" in refused("store=store")
    (tmp_path / "results" / "run" / "r").mkdir(parents=True)
    (tmp_path / "results" / "run" / "r" / "run.json").write_text('{"version": 2}')
    assert "written by a newer srbench (version 2)" in refused("run=r")


def test_a_disk_that_is_too_small_is_known_before(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 1000))
    said = refused("+experiment=shapes_delta_sweep")
    assert "1e+03 B free" in said or "1000 B free" in said
    assert "keep=none" in said


def fails(error: Exception) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(b"a part of it")
        raise error

    return write


class SafetensorError(Exception):
    """As the library tells it: without a number."""


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EROFS, "Read-only file system"),
        PermissionError(errno.EACCES, "Permission denied"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_disk_that_fills_up_while_writing_is_told_and_leaves_nothing(
    tmp_path: Path, error: Exception
) -> None:
    store = Store(tmp_path / "store")
    for write in (lambda w: store.put("aa", ".bin", w), lambda w: write_atomic(tmp_path / "x" / "y", w)):
        with pytest.raises(CannotWrite) as told:
            write(fails(error))
        assert str(tmp_path) in told.value.got
    assert store.get("aa") is None
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["version"]


def test_other_errors_of_a_writer_keep_their_traceback(tmp_path: Path) -> None:
    assert cannot_write(OSError(errno.EIO, "Input/output error"), tmp_path) is None
    with pytest.raises(ZeroDivisionError):
        Store(tmp_path).put("aa", ".bin", fails(ZeroDivisionError()))


def test_mistakes_survive_the_way_from_a_worker() -> None:
    for error in (
        UserErrors([UserError("a", "b", "c"), UserError("d", "e", "f")]),
        CannotWrite("a", "b", "c"),
    ):
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is type(error) and str(back) == str(error)


# -- any configuration at all


def places(node: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to every value of a configuration."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*here, key)
        yield from places(value, (*here, key))


GOOD = composed("method=[large,small,fixed_step,srdiffusion_teacache,pab]", "suite.prompts=2")
PLACES = sorted(places(GOOD), key=str)

odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 10**30, 1e308, -1e308, 1e-320, math.nan, math.inf, -math.inf]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["", " ", "\0", "a\nb", "../..", "large", "builtin:", "builtin:../..", "é" * 300, "[", "${x}"]
    ),
)
garbage = st.recursive(
    odd,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd | st.text(max_size=8), inner, max_size=3),
)
mutation = st.tuples(st.sampled_from(["drop", "rename", "set", "add"]), st.sampled_from(PLACES), garbage)


def mutated(plain: dict[str, Any], changes: list[tuple[str, tuple[Any, ...], Any]]) -> dict[str, Any]:
    plain = copy.deepcopy(plain)
    for what, (*parents, last), value in changes:
        node: Any = plain
        try:
            for key in parents:
                node = node[key]
            if what == "set":
                node[last] = value
            elif what == "add":
                node[last][value if isinstance(value, (str, int, float)) else "new"] = value
            else:
                taken = node.pop(last)
                if what == "rename":
                    node[f"{last}x"] = taken
        except (KeyError, IndexError, TypeError, AttributeError):
            continue  # an earlier change took this place away
    return plain


@settings(max_examples=150)
@given(st.lists(mutation, min_size=1, max_size=4))
def test_any_change_of_a_configuration_is_accepted_or_told_in_12_lines(changes: list) -> None:
    try:
        door.settle(mutated(GOOD, changes))
    except UserError as error:
        lines = f"srbench: {error}".splitlines()
        assert 2 <= len(lines) <= 12
        assert all(len(line) < 1000 for line in lines)
        str(error).encode()


@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(changes=st.lists(mutation, min_size=1, max_size=2))
def test_what_is_accepted_can_be_priced(changes: list, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    plain = mutated(GOOD, changes) | {
        "dry_run": True,
        "results": str(tmp_path / "r"),
        "store": str(tmp_path / "s"),
    }
    plain["suite"] = GOOD["suite"]  # else a random number of seeds may be a long plan
    try:
        assert door.job(plain, []) == 0
    except UserError as error:
        assert len(str(error).splitlines()) <= 12
    assert list(tmp_path.iterdir()) == []
    capsys.readouterr()


word = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
override = st.one_of(
    word,
    st.tuples(st.sampled_from(["", "+", "++", "~"]), st.sampled_from(PLACES), word).map(
        lambda t: f"{t[0]}{'.'.join(map(str, t[1]))}={t[2]}"
    ),
    st.tuples(st.sampled_from(["method", "family", "suite", "metric", "engine", "+experiment"]), word).map(
        "=".join
    ),
)


@settings(
    max_examples=30,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking composes for minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.lists(override.filter(lambda o: not o.startswith("-")), min_size=1, max_size=3))
def test_any_command_line_is_accepted_or_refused_in_words(words: list[str]) -> None:
    try:
        overrides.checked(words, door.settle)
    except UserError as error:
        assert len(str(error).splitlines()) <= 12


def test_sizes_are_readable() -> None:
    assert [cost.size(n) for n in (0, 999, 2048, 5 * 2**20, 7 * 2**40)] == [
        "0 B",
        "999 B",
        "2 KiB",
        "5 MiB",
        "7 TiB",
    ]
