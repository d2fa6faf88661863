"""Numba's kernels against the calls of torch that they stand for."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import specreg
from specreg.losses import amplitude, amplitude_phase, build, fused, kernels, optional
from specreg.losses.fourier_l1 import FourierL1
from specreg.losses.wavelet_l1 import WaveletL1

pytest.importorskip("numba")
from specreg.losses.kernels import fourier, fourier_loops, haar, runtime

COUPLINGS = [None, "frequency", "projection"]
SPECTRA = [(3, 2, 15), (2, 1, 5000), (2, 3, 8, 10), (2, 2, 33, 7), (1, 1, 5, 3000), (2, 1, 4, 6, 5)]
HAAR = [
    ((3, 2, 16), 3), ((2, 1, 20001), 4), ((4, 1, 6), 2), ((2, 3, 8, 16), 3), ((2, 2, 32, 24), 5), ((3, 1, 7, 13), 2),
    ((1, 1, 33, 2500), 4), ((5, 7, 16, 16), 3), ((2, 1, 3, 5), 6), ((1, 1, 9000), 20), ((2, 1, 4, 8, 12), 2),
    ((1, 2, 5, 7, 9), 3),
]  # fmt: skip


def pair(shape):
    g = torch.Generator().manual_seed(0)
    x0 = torch.randn(shape, generator=g)
    return x0 + 0.3 * torch.randn(shape, generator=g), x0


def weights(kind, shape):
    if kind is None:
        return None
    return torch.rand(shape[0] if kind == "each" else 1, *shape[1:], generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def number_of_threads():
    runtime._threads(os.getpid())  # tells torch its number of threads, the real one
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before, "later tests in this process would round differently"


@pytest.fixture(params=["one thread", "four threads"])
def threads(request, monkeypatch):
    if request.param == "four threads":
        monkeypatch.setattr(runtime, "WORK", 1)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 4)


def check(loss, x0_hat, x0, w):
    """Values and gradients of kernels are those of torch's calls in float64, and with none are the same."""
    assert optional.find_kernel("fourier", x0_hat, x0) is fourier.evaluate
    found = loss.evaluate(x0_hat, x0, w, True, 0.5)
    expected = loss.evaluate(x0_hat.double(), x0.double(), None if w is None else w.double(), True, 0.5)
    torch.testing.assert_close(found.value.double(), expected.value, rtol=2e-6, atol=0)
    error = (found.gradient - expected.gradient).abs().max()
    assert error < 1e-4 * expected.gradient.abs().max()  # a small F̂ has few digits of its direction
    alone = loss.evaluate(x0_hat, x0, w, False, 0.5)
    assert torch.equal(alone.value, found.value)
    assert alone.gradient is None


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("shape", SPECTRA, ids=str)
@pytest.mark.parametrize("weighted", [None, "all", "each"])
@pytest.mark.usefixtures("threads")
def test_fourier_kernels_are_the_calls_of_torch(coupling, shape, weighted):
    x0_hat, x0 = pair(shape)
    w = weights(weighted, (shape[0], *shape[2:-1], shape[-1] // 2 + 1))
    check(FourierL1(coupling, len(shape) - 2, "ortho", "mean"), x0_hat, x0, w)


@pytest.mark.parametrize(("shape", "levels"), HAAR, ids=str)
@pytest.mark.parametrize("weighted", [None, "all", "each"])
@pytest.mark.usefixtures("threads")
def test_the_haar_kernel_is_the_calls_of_torch(shape, levels, weighted):
    x0_hat, x0 = pair(shape)
    bands = levels * (2 ** (len(shape) - 2) - 1) + 1
    loss = WaveletL1("haar", levels, "symmetric", len(shape) - 2, "mean", tuple(1 + k / bands for k in range(bands)))
    check(loss, x0_hat, x0, weights(weighted, (shape[0], bands)))


@pytest.mark.parametrize("ndim", [1, 2])
def test_fewer_axes_and_chunks_of_a_batch_with_weights(ndim, monkeypatch):
    monkeypatch.setattr(fused, "CHUNK", (1, 600))
    x0_hat, x0 = pair((5, 2, 3, 12, 10))
    for w in (torch.rand(5, 10), torch.rand(1, 10).expand(5, -1)):
        bands = 3 * (2**ndim - 1) + 1
        check(WaveletL1("haar", 3, "periodization", ndim, "mean", (1.0,) * bands), x0_hat, x0, w[:, :bands])
    for coupling in COUPLINGS:
        half = (12, 6)[-ndim:]
        for w in (torch.rand(5, *half), torch.rand(1, *half).expand(5, *half), None):
            check(FourierL1(coupling, ndim, "ortho", "sum"), x0_hat, x0, w)


def test_the_default_device_is_not_asked():
    x0_hat, x0 = pair((2, 1, 6, 18))
    with torch.device("meta"):
        for name in ("amplitude", "haar"):
            assert build(name)(x0_hat, x0).device.type == "cpu"


@pytest.mark.parametrize("mode", ["periodization", "periodic", "zero", "symmetric", "reflect", "constant"])
@pytest.mark.parametrize("name", ["haar", "db1", "bior1.1", "rbio1.1"])
def test_every_haar_and_boundary(name, mode):
    for shape in [(2, 1, 13, 8), (2, 1, 16, 8)]:
        x0_hat, x0 = pair(shape)
        check(WaveletL1(name, 3, mode, 2, "sum", (1.0,) * 10), x0_hat, x0, None)


@pytest.mark.parametrize("name", ["amplitude", "amplitude_phase", "haar"])
def test_kernels_are_used_and_torch_does_the_same(name, monkeypatch):
    calls, find = [], kernels.find

    def finding(name, *tensors):
        calls.append(name)
        return find(name, *tensors)

    found = []
    for finder in (finding, lambda name, *tensors: None):
        monkeypatch.setattr(optional, "_find", lambda finder=finder: finder)
        x0_hat, x0 = pair((3, 2, 12, 20))
        value = build(name)(x0_hat.requires_grad_(), x0)
        value.sum().backward()
        found.append((value.detach(), x0_hat.grad))
    assert calls == ["haar" if name == "haar" else "fourier"]
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["amplitude", "amplitude_phase", "haar"])
def test_equal_samples_have_neither_loss_nor_gradient(name):
    _, x0 = pair((2, 3, 33, 64))
    for y in (x0, torch.zeros_like(x0)):
        x0_hat = y.clone().requires_grad_()
        value = build(name)(x0_hat, y)
        value.sum().backward()
        assert not value.any()
        assert not x0_hat.grad.any()


def test_projection_has_no_gradient_between_equal_samples():
    _, x0 = pair((2, 3, 33, 64))
    x0_hat = x0.clone().requires_grad_()
    amplitude_phase(x0_hat, x0, coupling="projection").sum().backward()
    assert not x0_hat.grad.any()


def test_the_angle_is_atan2():
    rng = np.random.default_rng(0)
    edges = np.float32([0.0, -0.0, 1.0, -1.0, 1e-30, -1e-30, 1e30, -1e30])
    y, x = (np.append(a.ravel(), rng.normal(size=10000)).astype(np.float32) for a in np.meshgrid(edges, edges))
    expected = np.arctan2(y.astype(np.float64), x.astype(np.float64))
    none = (x == 0) & (y == 0)
    found = y.copy()
    fourier_loops._angle(found, x, np.empty_like(x))
    assert not found[none].any()
    np.testing.assert_allclose(found[~none], expected[~none], rtol=4e-7, atol=1e-38)


def test_infinities_and_overflow_are_reported_as_without_kernels():
    x0_hat, x0 = pair((3, 1, 8, 8))
    x0[1, 0, 2, 3] = math.inf
    for name in ("amplitude", "amplitude_phase", "haar"):
        with pytest.raises(ValueError, match=r"x0 must be finite.*\[1\]"):
            build(name)(x0_hat, x0)
    huge = amplitude(1e25 * x0_hat[:1], 1e25 * x0[:1])  # squares overflow: torch's careful way
    torch.testing.assert_close(huge, 1e25 * amplitude(x0_hat[:1], x0[:1]), rtol=1e-5, atol=0)


def test_what_kernels_do_not_take():
    def taken(*tensors):
        return kernels.find("haar", *tensors) is haar.evaluate

    class Subclass(torch.Tensor):
        pass

    x = torch.zeros(2)
    assert taken(x)
    assert not taken(x.double())
    assert taken(torch.nn.Parameter(x), x)
    assert not taken(x, x.as_subclass(Subclass))
    assert not taken(torch.zeros(2, device="meta"))
    assert not taken(torch._neg_view(x))


def run_python(code, check=True, **environment):
    environment = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=check)


ABSENT = "sys.modules['numba'] = None"
BROKEN = "import types; sys.modules['numba'] = types.ModuleType('numba')"


@pytest.mark.parametrize(
    ("before", "environment", "used"),
    [
        ("", {}, True),
        ("", {"NUMBA_DISABLE_JIT": "1"}, False),
        ("", {"SPECREG_KERNELS": "0"}, False),
        (ABSENT, {}, False),
        (BROKEN, {}, False),
    ],
)
def test_kernels_can_be_switched_off_and_numba_absent(before, environment, used, monkeypatch):
    monkeypatch.setattr(kernels, "_load", kernels._load.__wrapped__)  # which remembers nothing
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if "NUMBA_DISABLE_JIT" in environment:  # which Numba reads when it is imported
        monkeypatch.setattr("numba.config.DISABLE_JIT", True)
    if before:
        monkeypatch.setitem(sys.modules, "numba", None if before == ABSENT else types.ModuleType("numba"))
    x = torch.ones(1, 8)
    assert (optional.find_kernel("fourier", x) is not None) == used
    torch.testing.assert_close(amplitude(x, 2 * x), torch.tensor([8 / math.sqrt(8) / 8]))


def test_without_their_folder_the_package_and_all_losses_work(tmp_path):
    package = Path(specreg.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__", "kernels")
    shutil.copytree(package, tmp_path / "specreg", ignore=ignored)
    code = """
import json, sys
import torch
import specreg
assert specreg.__file__.startswith(HERE), specreg.__file__
found = {}
x0_hat, x0 = torch.linspace(-1, 1, 2 * 2 * 1 * 2000).square().reshape(2, 2, 1, 2000).unbind()
for name in ("amplitude", "amplitude_phase", "haar", "bior1.3", "mr_stft"):
    x = x0_hat.clone().requires_grad_()
    value = specreg.losses.build(name)(x, x0)
    value.sum().backward()
    found[name] = [*value.tolist(), x.grad.norm().item()]
print(json.dumps([found, "specreg.losses.kernels" in sys.modules, "numba" in sys.modules]))
"""
    done = run_python(f"HERE = {str(tmp_path)!r}" + code, PYTHONPATH=str(tmp_path))
    found, *modules = json.loads(done.stdout)
    assert modules == [False, False]
    x0_hat, x0 = torch.linspace(-1, 1, 2 * 2 * 1 * 2000).square().reshape(2, 2, 1, 2000).unbind()
    for name, (*values, norm) in found.items():
        x = x0_hat.clone().requires_grad_()
        value = build(name)(x, x0)
        value.sum().backward()
        assert values == pytest.approx(value.tolist(), rel=1e-5)
        assert norm == pytest.approx(x.grad.norm().item(), rel=1e-4)


def test_the_first_compilation_says_so_in_one_line_and_the_cache_is_silent(tmp_path):
    code = "import torch, specreg; x = torch.ones(1, 1, 4, 8); specreg.losses.wavelet(x, 2 * x)"
    first, second = (run_python(code, NUMBA_CACHE_DIR=str(tmp_path)).stderr for _ in range(2))
    assert re.fullmatch(r"specreg: Numba compiles .*SPECREG_KERNELS=0.*\n", first)
    assert second == ""


def test_a_kernel_compiles_where_nothing_can_be_written(monkeypatch):
    import numba

    njit, asked = numba.njit, []

    def refusing(**options):
        asked.append(options.get("cache", False))
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", refusing)
    assert runtime.jit(lambda x: x + 1)(1) == 2
    assert asked == [True, False]


def test_only_what_is_worth_it_and_safe_runs_on_threads(monkeypatch):
    import numba

    def shares(units, values):
        found = []
        runtime.run(lambda *args: found.append(args), lambda *args: found.append(args), "work", (1, 3), units, values)
        if found != [("work", 1, 0, 1), ("work", 2, 0, 1)]:
            assert found == [("work", 1, 3, found[0][-1])]
        return found[0][-1]

    worth = 100 * runtime.WORK
    assert shares(100, worth) == min(torch.get_num_threads(), 100)
    before = numba.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    several = 3 if numba.threading_layer() in ("omp", "tbb") else 1
    assert shares(100, worth) == several
    assert shares(2, worth) == min(2, several)
    assert shares(100, runtime.WORK) == 1
    assert numba.get_num_threads() == before
    with monkeypatch.context() as forked:
        forked.setattr(runtime.os, "getpid", lambda: -1)
        assert shares(100, worth) == 1
    with monkeypatch.context() as other:
        other.setattr(numba, "threading_layer", lambda: "workqueue")  # takes one caller at a time
        other.setattr(runtime, "_threads", runtime._threads.__wrapped__)
        assert shares(100, worth) == 1


LOSSES_ON_THREADS = """
import torch
torch.set_num_threads(NUMBER)
from specreg import losses
x = torch.zeros(8, 3, 64, 64)
print([round(float(losses.build(name)(x, x + 1).sum()), 5) for name in ("amplitude", "haar", "haar")])
print(torch.get_num_threads())
"""


@pytest.fixture(scope="module")
def losses_without_kernels():
    return run_python(LOSSES_ON_THREADS.replace("NUMBER", "2"), SPECREG_KERNELS="0").stdout.splitlines()[0]


@pytest.mark.parametrize(("layer", "number"), [("tbb", 2), ("safe", 1), ("workqueue", 3), ("omp", 1), ("default", 3)])
def test_threading_layers_change_neither_losses_nor_torch_s_number_of_threads(layer, number, losses_without_kernels):
    code = LOSSES_ON_THREADS.replace("NUMBER", str(number))
    found = run_python(code, OMP_NUM_THREADS="2", NUMBA_THREADING_LAYER=layer).stdout.splitlines()
    assert found == [losses_without_kernels, str(number)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_worker_takes_losses_as_a_data_loader_runs_it():
    code = """
import os, torch
from specreg import losses
x0, x0_hat = torch.zeros(8, 3, 64, 64), torch.ones(8, 3, 64, 64)
before = [losses.build(name)(x0_hat, x0) for name in ("amplitude", "haar") for _ in range(2)]
if (child := os.fork()) == 0:
    torch.set_num_threads(1)
    after = [losses.build(name)(x0_hat, x0) for name in ("amplitude", "haar") for _ in range(2)]
    os._exit(0 if all(map(torch.equal, before, after)) else 3)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_python(code, check=False).returncode == 0


def test_callers_on_several_threads_do_not_mix():
    pairs = [pair((2, 3, 64, 64)), pair((2, 3, 48, 80))] * 4
    expected = [[build(name)(*p) for name in ("amplitude", "haar")] for p in pairs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda p: [build(name)(*p) for name in ("amplitude", "haar")], pairs * 5))
    torch.testing.assert_close(found, expected * 5)


def test_overflow_in_one_chunk_is_taken_carefully(monkeypatch):
    x0_hat, x0 = pair((3, 1, 8, 8))
    scale = torch.tensor([1.0, 1e25, 1.0]).reshape(3, 1, 1, 1)
    found = FourierL1(None, 2, "ortho", "mean").evaluate(scale * x0_hat, scale * x0, None, True, 1.0)
    monkeypatch.setattr(fused, "CHUNK", (1, 64))
    chunked = FourierL1(None, 2, "ortho", "mean").evaluate(scale * x0_hat, scale * x0, None, True, 1.0)
    torch.testing.assert_close(chunked.value, found.value)
    torch.testing.assert_close(chunked.gradient, found.gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["amplitude", "amplitude_phase", "haar"])
def test_forward_mode_is_refused_and_not_forgotten(name):
    x0_hat, x0 = pair((2, 1, 8, 8))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x0_hat, x0)
        with pytest.raises(RuntimeError, match="jvp"):
            build(name)(dual, x0)
