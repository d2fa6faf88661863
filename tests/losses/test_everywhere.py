"""The losses inside what users run them in: torch.compile, vmap, odd memory layouts, mixed precision, accelerators."""

import json
import math
import subprocess
import sys
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import pywt
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import specreg
from specreg._compile import constant_tensors
from specreg.losses import amplitude, amplitude_phase, build, fused, wavelet
from specreg.losses.wavelet_l1 import WaveletL1
from specreg.transforms import wavelet_stages
from specreg.transforms.wavelet_stages import Cells, Filters, Matrices, plan

LOSSES = {
    "amplitude": build("amplitude"),
    "frequency": build("amplitude_phase"),
    "norm": build("amplitude_phase", coupling="norm", reduction="sum"),
    "projection": build("amplitude_phase", coupling="projection"),
    "haar": build("haar"),
    "bior1.3": build("bior1.3", levels=2, mode="symmetric", band_weights=[2.0, 0.5]),
}
OF_IMAGES = {**LOSSES, "haar, weighted": build("haar", levels=2, band_weights={(1, "dd"): 2.0})}
SHAPES = [(3, 15), (3, 2, 16), (2, 3, 8, 10), (2, 1, 4, 6, 5)]


def pair(shape, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    x0 = torch.randn(shape, generator=g, dtype=torch.float64)
    return (x0 + 0.3 * torch.randn(shape, generator=g, dtype=torch.float64)).to(dtype), x0.to(dtype)


def evaluate(loss, x0_hat, x0):
    """Values of a loss, and the gradient of a sum that weighs samples differently."""
    x = x0_hat.detach().requires_grad_()
    value = loss(x, x0)
    (value * torch.arange(1.0, 1 + len(x0), dtype=value.dtype)).sum().backward()
    return value.detach(), x.grad


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_compiled_graph_is_whole_and_equal(name, shape):
    torch.compiler.reset()
    x0_hat, x0 = pair(shape)
    compiled = torch.compile(lambda x, y: 2.0 * LOSSES[name](1.0 * x, y), fullgraph=True, backend="aot_eager")
    expected, gradient = evaluate(lambda x, y: 2.0 * LOSSES[name](x, y), x0_hat, x0)
    found, compiled_gradient = evaluate(compiled, x0_hat, x0)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(compiled_gradient, gradient)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x0_hat, x0), expected)


def test_a_whole_training_step_compiles_with_inductor():
    torch.compiler.reset()
    regularizer = specreg.SpectralRegularizer("amplitude_phase", weight=0.1, noise_weight="snr", band_weight="wiener")
    net = torch.nn.Conv2d(1, 1, 3, padding=1)

    def step(x0, noise, sigma):
        level = specreg.NoiseLevel.edm(sigma)
        x_t = level.diffuse(x0, noise)
        x0_hat = specreg.recover_x0(net(x_t), x_t, level, prediction="v")
        return (x0_hat - x0).square().mean() + regularizer(x0_hat, x0, level).loss

    x0, noise = pair((4, 1, 8, 8))
    batch = (x0, noise, torch.tensor([0.1, 0.5, 1.0, 5.0]))
    gradients = []
    for run in (step, torch.compile(step, fullgraph=True)):
        net.zero_grad()
        run(*batch).backward()
        gradients.append([p.grad.clone() for p in net.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("loss", LOSSES.values(), ids=list(LOSSES))
def test_the_operator_is_registered_as_torch_asks(loss):
    x0_hat, x0 = pair((2, 3, 8, 10))
    if isinstance(loss, specreg.losses.Wavelet):
        description = WaveletL1("haar", 2, "periodization", 2, "mean", (1.0,) * 7)
    else:
        description = fused.Description.kinds["FourierL1"](getattr(loss, "coupling", None), 2, "ortho", "mean")
    for layout in (torch.contiguous_format, torch.channels_last):
        x = x0_hat.to(memory_format=layout).requires_grad_()
        torch.library.opcheck(
            torch.ops.specreg.value_and_gradient,
            (x, x0, None, description.written(), True),
            test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
        )


@pytest.mark.parametrize("name", OF_IMAGES)
@pytest.mark.parametrize("in_dims", [(0, 0), (1, None), (None, 0)], ids=str)
def test_vmap_is_a_loop(name, in_dims):
    loss = OF_IMAGES[name]
    x0_hat, x0 = pair((2, 3, 8, 6))
    others, _ = pair((4, 2, 3, 8, 6), seed=1)
    args = [x if axis is None else others.movedim(0, axis) for x, axis in zip((x0_hat, x0), in_dims, strict=True)]
    found = torch.func.vmap(loss, in_dims=in_dims)(*args)
    rows = [[x if axis is None else x.select(axis, i) for x, axis in zip(args, in_dims, strict=True)] for i in range(4)]
    torch.testing.assert_close(found, torch.stack([loss(*row) for row in rows]))


@pytest.mark.parametrize("name", OF_IMAGES)
def test_per_sample_gradients_by_vmap_of_grad(name):
    loss = OF_IMAGES[name]
    x0_hat, x0 = pair((3, 2, 8, 6))
    found = torch.func.vmap(torch.func.grad(lambda x, y: loss(x[None], y[None]).sum()))(x0_hat, x0)
    x = x0_hat.clone().requires_grad_()
    loss(x, x0).sum().backward()
    torch.testing.assert_close(found, x.grad)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_gradients_flow_back_through_vmap(name):
    _, x0 = pair((2, 3, 8, 6))
    others, _ = pair((4, 2, 3, 8, 6), seed=1)
    gradients = []
    for run in (
        torch.func.vmap(OF_IMAGES[name], in_dims=(0, None)),
        lambda z, y: torch.stack([OF_IMAGES[name](r, y) for r in z]),
    ):
        z = others.clone().requires_grad_()
        run(z, x0).square().sum().backward()
        gradients.append(z.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("name", OF_IMAGES)
def test_no_gradient_flows_to_x0_under_vmap_either(name):
    x0_hat, _ = pair((2, 3, 8, 6))
    x0 = pair((4, 2, 3, 8, 6), seed=1)[0].requires_grad_()
    value = torch.func.vmap(OF_IMAGES[name], in_dims=(None, 0))(x0_hat, x0)
    assert not value.requires_grad
    assert not torch.func.grad(lambda y: torch.func.vmap(OF_IMAGES[name], (None, 0))(x0_hat, y).sum())(x0).any()


def test_a_frequency_weight_may_write_on_what_it_is_given():
    x0_hat, x0 = pair((2, 1, 8, 8))
    for loss in (amplitude, wavelet):
        before = loss(x0_hat, x0, frequency_weight=lambda f: (1 + f)[None])
        loss(x0_hat, x0, frequency_weight=lambda f: f.mul_(100)[None])
        torch.testing.assert_close(loss(x0_hat, x0, frequency_weight=lambda f: (1 + f)[None]), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_memory_layout_does_not_matter(name):
    x0_hat, x0 = pair((2, 3, 8, 6))
    expected, gradient = evaluate(LOSSES[name], x0_hat, x0)
    for layout in (
        lambda x: x.to(memory_format=torch.channels_last),
        lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
        lambda x: torch.stack([x, x], -1)[..., 0],
    ):
        found, layout_gradient = evaluate(LOSSES[name], layout(x0_hat), layout(x0))
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(layout_gradient, gradient)


@pytest.mark.parametrize("name", LOSSES)
def test_chunks_change_nothing(name, monkeypatch):
    for shape in [(5, 40), (3, 2, 16, 12), (1, 3, 16, 12)]:
        x0_hat, x0 = pair(shape, torch.float64)
        whole = evaluate(LOSSES[name], x0_hat, x0)
        with monkeypatch.context() as patch:
            patch.setattr(fused, "CHUNK", (1, 200))
            patch.setattr(torch, "get_num_threads", lambda: 1)
            parts = list(fused.chunks(x0.shape if x0.ndim > 2 else x0[:, None].shape, max(1, x0.ndim - 2),
                                      whole_samples=name == "norm", device=x0.device))  # fmt: skip
            assert len(parts) > 1 or (name == "norm" and len(x0) == 1)
            torch.testing.assert_close(evaluate(LOSSES[name], x0_hat, x0), whole, rtol=1e-12, atol=1e-15)


def test_chunks_cover_everything_once():
    for shape, ndim, whole in [
        ((5, 7, 300, 300), 2, False),
        ((1, 9, 1000, 700), 2, False),
        ((8, 3, 600, 600), 2, True),
    ]:
        seen = torch.zeros(shape[:2], dtype=torch.int64)
        for b, r in fused.chunks(torch.Size(shape), ndim, whole_samples=whole, device=torch.device("cpu")):
            seen[b, r] += 1
            assert not whole or r == slice(0, shape[1]) or r == slice(shape[1])
        assert (seen == 1).all()


@pytest.mark.parametrize("wavelet_name", ["haar", "db2", "bior1.3", "coif1"])
@pytest.mark.parametrize("mode", ["periodization", "periodic", "zero", "symmetric", "reflect", "constant"])
@pytest.mark.parametrize("shape", [(2, 1, 17), (2, 2, 8, 11), (2, 1, 4, 5, 6)], ids=str)
def test_wavelet_gradients_equal_the_transpose_of_pywavelets(wavelet_name, mode, shape):
    """With W the matrix that PyWavelets applies, the gradient of ‖W d‖₁ is Wᵀ sign(W d)."""
    x0_hat, x0 = pair(shape, torch.float64)
    space, axes = shape[2:], tuple(range(1, len(shape) - 1))
    units = np.eye(math.prod(space)).reshape(-1, *space)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "Level value is too high"
        approx, *details = pywt.wavedecn(units, wavelet_name, mode=mode, level=2, axes=axes)
    bands = [approx, *(w for detail in details for w in detail.values())]
    W = np.concatenate([band.reshape(len(units), -1) for band in bands], 1)
    coefficients = (x0_hat - x0).numpy().reshape(*shape[:2], -1) @ W
    x = x0_hat.clone().requires_grad_()
    value = wavelet(x, x0, wavelet=wavelet_name, levels=2, mode=mode, reduction="sum")
    value.sum().backward()
    np.testing.assert_allclose(value.detach(), np.abs(coefficients).sum((1, 2)), rtol=1e-12)
    np.testing.assert_allclose(x.grad, (np.sign(coefficients) @ W.T).reshape(shape), rtol=1e-9, atol=1e-12)


def test_constants_made_under_inference_mode_serve_a_backward_pass():
    x0_hat, x0 = pair((1, 1, 211))  # a size of no other test
    with torch.inference_mode():
        wavelet(x0_hat, x0, wavelet="db3", levels=1)
    x = x0_hat.clone().requires_grad_()
    wavelet(x, x0, wavelet="db3", levels=1).sum().backward()
    assert x.grad.abs().max() > 0


CHAINS = [
    ("haar", "periodization", (2, 3, 64), 6, [Cells, Cells]),
    ("haar", "symmetric", (2, 1, 80), 5, [Cells, Cells, Matrices]),
    ("haar", "periodization", (2, 2, 16, 8), 3, [Cells]),
    ("haar", "periodization", (2, 1, 32, 64), 5, [Cells, Cells]),
    ("db1", "reflect", (2, 1, 160, 76), 4, [Cells, Matrices, Cells]),
    ("haar", "periodization", (2, 1, 8, 4, 16), 2, [Cells]),
    ("haar", "periodization", (1, 2, 8, 8, 8), 3, [Cells, Cells]),
    ("bior1.3", "periodization", (2, 3, 32, 24), 3, [Matrices] * 3),
    ("bior1.3", "periodization", (2, 1, 72, 133), 2, [Filters, Matrices]),
    ("db4", "symmetric", (2, 1, 260, 12), 3, [Filters, Matrices, Matrices]),
    ("coif1", "zero", (2, 1, 7, 9, 6), 2, [Matrices] * 2),
]


@pytest.mark.parametrize(("name", "mode", "shape", "levels", "kinds"), CHAINS, ids=str)
@pytest.mark.parametrize("weighted", [None, "one", "each"])
def test_every_way_of_a_wavelet_transform_is_the_same(name, mode, shape, levels, kinds, weighted, monkeypatch):
    x0_hat, x0 = pair(shape, torch.float64)
    assert [type(stage) for stage in plan(name, levels, mode, shape[2:], x0)] == kinds
    bands = levels * (2 ** (len(shape) - 2) - 1) + 1
    gammas = tuple(0.5 + k / bands for k in range(bands))
    loss = WaveletL1(name, levels, mode, len(shape) - 2, "sum", gammas)
    weights = (
        None if weighted is None else torch.rand(shape[0] if weighted == "each" else 1, bands, dtype=torch.float64)
    )
    found = loss.evaluate(x0_hat, x0, weights, True, 0.5)
    alone = loss.evaluate(x0_hat, x0, weights, False, 0.5)
    monkeypatch.setattr(wavelet_stages, "_products_are_exact", lambda _: False)
    monkeypatch.setattr(wavelet_stages, "HAAR", ())
    monkeypatch.setattr(wavelet_stages, "_plan", wavelet_stages._plan.__wrapped__)  # which remembers nothing
    assert {type(stage) for stage in plan(name, levels, mode, shape[2:], x0)} == {Filters}
    expected = loss.evaluate(x0_hat, x0, weights, True, 0.5)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(alone.value, expected.value, rtol=1e-12, atol=1e-12)


def test_products_of_matrices_are_for_full_precision():
    x = torch.empty(1)
    assert wavelet_stages._products_are_exact(x)
    assert not wavelet_stages._products_are_exact(torch.empty(1, device="meta"))
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")  # bfloat16, where a CPU has it
        assert not wavelet_stages._products_are_exact(x)
        assert wavelet_stages._products_are_exact(x.double())
    finally:
        torch.set_float32_matmul_precision(before)


def test_values_that_overflow_when_squared_are_exact():
    x0_hat, x0 = pair((2, 1, 8, 8), torch.float64)
    for loss in (amplitude, amplitude_phase):
        found, gradient = evaluate(loss, (1e25 * x0_hat).float(), (1e25 * x0).float())
        expected, true_gradient = evaluate(loss, 1e25 * x0_hat, 1e25 * x0)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
        torch.testing.assert_close(gradient.double(), true_gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_second_derivative_is_refused_also_of_a_sum_with_another_loss(name):
    x0_hat, x0 = pair((2, 1, 8, 8))
    x0_hat.requires_grad_()
    loss = OF_IMAGES[name]

    def total(x):
        return x.square().sum() + loss(x, x0).sum()

    def penalty(x):
        return torch.func.grad(total)(x).square().sum()

    (gradient,) = torch.autograd.grad(total(x0_hat), x0_hat, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(gradient.square().sum(), x0_hat)
    (gradient,) = torch.autograd.grad(total(x0_hat), x0_hat, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        gradient.square().sum().backward()
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.func.grad(penalty)(x0_hat.detach())
    torch.compiler.reset()
    compiled = torch.compile(total, backend="eager", fullgraph=True)
    (gradient,) = torch.autograd.grad(compiled(x0_hat), x0_hat, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(gradient.square().sum(), x0_hat)


class _NoFloat64(TorchDispatchMode):
    """What an Apple GPU demands: float64 does not exist there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            assert not isinstance(x, torch.Tensor) or x.dtype not in (torch.float64, torch.complex128), func
        return out


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_no_float64_on_the_way(name, dtype):
    x0_hat, x0 = pair((2, 3, 8, 6), dtype)
    regularizer = specreg.SpectralRegularizer(LOSSES[name], weight=0.1, noise_weight="snr", band_weight="wiener")
    level = specreg.NoiseLevel.edm(torch.tensor([0.3, 2.0]))
    x0_hat.requires_grad_()
    regularizer(x0_hat, x0, level)  # frequency grids are made once, on the CPU, in float64
    with _NoFloat64():
        regularizer(x0_hat, x0, level).loss.backward()


class _NothingSent(TorchDispatchMode):
    """Refuses copies from the CPU to an accelerator."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        copied = str(func).startswith(("aten._to_copy", "aten.copy_"))
        places = {x.device.type for x in (*args, result) if isinstance(x, torch.Tensor)}
        assert not (copied and len(places) > 1), f"{func} between {places}"
        return result


@pytest.mark.skipif(torch.__version__ < "2.5", reason="this torch crashes on fake CUDA tensors without a GPU")
@pytest.mark.parametrize("name", OF_IMAGES)
def test_nothing_waits_for_an_accelerator(name):
    """On fake CUDA tensors every read of a value is an error, and no tensor is sent from the CPU."""
    # A wavelet's matrices and the indices of its borders are sent: once, if the tensors were not fake.
    with FakeTensorMode(), nullcontext() if name.startswith(("haar", "bior")) else _NothingSent():
        x0_hat, x0 = (torch.empty(2, 3, 8, 8, device="cuda") for _ in range(2))
        value = OF_IMAGES[name](x0_hat.requires_grad_(), x0)  # the gradient is computed here too
        assert value.requires_grad
        assert value.device.type == "cuda"


def test_constant_tensors_are_kept_unless_fake():
    made = []

    @constant_tensors(4)
    def counting(n, *, start):
        made.append(n)
        return torch.arange(start, n), torch.zeros(n)

    with FakeTensorMode():
        assert isinstance(counting(3, start=1)[0], FakeTensor)
    with torch.inference_mode():
        kept = counting(3, start=1)
    assert type(kept[0]) is torch.Tensor
    assert not kept[1].is_inference()
    assert counting(3, start=1)[1] is kept[1]
    assert made == [3, 3]


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@needs_cuda
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", OF_IMAGES)
def test_cuda_agrees_with_the_cpu_and_never_synchronizes(name, dtype):
    x0_hat, x0 = pair((4, 3, 32, 32), dtype)
    expected, gradient = evaluate(OF_IMAGES[name], x0_hat, x0)
    x, y = x0_hat.cuda().requires_grad_(), x0.cuda()
    weights = torch.arange(1.0, 5.0, device="cuda")
    OF_IMAGES[name](x, y)  # caches are filled once
    torch.cuda.set_sync_debug_mode("error")
    try:
        value = OF_IMAGES[name](x, y)
        (value * weights).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(value.cpu(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(x.grad.cpu(), gradient, rtol=1e-2, atol=1e-3 * float(gradient.abs().max()))


@needs_cuda
@pytest.mark.parametrize("name", OF_IMAGES)
def test_cuda_graphs_capture_value_and_gradient(name):
    x0_hat, x0 = (t.cuda() for t in pair((4, 3, 32, 32)))
    x0_hat.requires_grad_()

    def step():
        x0_hat.grad = None
        OF_IMAGES[name](x0_hat, x0).sum().backward()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    expected = x0_hat.grad.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    x0_hat.grad.zero_()
    graph.replay()
    torch.testing.assert_close(x0_hat.grad, expected)


def test_losses_are_the_same_under_any_default_dtype():
    """As under Lightning's bf16-true. In a process of its own: constants are cached for the rest of a process."""
    names = ["amplitude", "amplitude_phase", "haar", "bior1.3", "dct:log_power", "swt:l1", "dwt(db4):binned_power"]
    script = f"""
import json, torch, specreg
torch.set_default_dtype(torch.bfloat16)
g = torch.Generator().manual_seed(0)
x = torch.randn(2, 2, 3, 16, 16, generator=g, dtype=torch.float32)
level = specreg.NoiseLevel.edm(torch.tensor([0.3, 2.0], dtype=torch.float32))
def term(name, **options):
    reg = specreg.SpectralRegularizer(name, weight=1.0, **options)
    return reg(x[0], x[1], level).per_sample.tolist()
found = {{name: term(name) for name in {names}}}
found |= {{name + "/wiener": term(name, band_weight="wiener") for name in ("amplitude", "haar")}}
print(json.dumps(found))
"""
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found = json.loads(shown.stdout)
    here = {}
    exec(script.replace("torch.set_default_dtype(torch.bfloat16)", "").replace("print(json.dumps(found))", ""), here)
    assert len(found) == len(names) + 2
    for name, values in here["found"].items():
        assert found[name] == pytest.approx(values, rel=1e-6), name
