"""Losses that compute value and gradient together, and their connection to autograd, torch.compile and vmap.

The gradient of each Fourier and wavelet loss has a closed form that costs little once the value is known. `fused` calls
`evaluate` of a loss's description, which returns both; autograd saves the gradient tensor, and the backward pass is one
multiplication. Under torch.compile the evaluation is an opaque operator, `specreg::value_and_gradient`, which does not
break the graph of a training step. Such losses are differentiable once.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from specreg import _checks
from specreg._compile import traced_as_constant


class Description(ABC):
    """A loss and its options; subclasses are frozen dataclasses whose fields are scalars or tuples of scalars."""

    kinds: ClassVar[dict[str, type[Description]]] = {}

    def __init_subclass__(cls) -> None:
        Description.kinds[cls.__name__] = cls

    @abstractmethod
    def evaluate(
        self, x0_hat: Tensor, x0: Tensor, weights: Tensor | None, wants_gradient: bool, scale: float
    ) -> Evaluation:
        """Return the scaled value `[B]` and the unscaled gradient; the backward pass applies `scale` once.

        Args:
            x0_hat: predicted clean samples, checked, `[B, C, *space]`.
            x0: clean samples of the same shape and dtype.
            weights: weights by frequency or band in the shape that the loss defines, or None.
            wants_gradient: whether to compute the gradient.
            scale: factor of the value.
        """

    @abstractmethod
    def scale(self, shape: torch.Size) -> float:
        """Return the factor of value and gradient for `shape` `[B, C, *space]`: that of norm and reduction."""

    @abstractmethod
    def options(self) -> tuple[Any, ...]:
        """Return the arguments with which the class builds an equal description."""

    def written(self) -> str:
        """Return the description as a string, for the signature of the operator."""
        return _written(type(self).__name__, self.options())


@traced_as_constant
def _written(kind: str, options: tuple[Any, ...]) -> str:
    return json.dumps([kind, *options])


@lru_cache(maxsize=256)
def _read(text: str) -> Description:
    kind, *options = json.loads(text)
    return Description.kinds[kind](*(tuple(x) if isinstance(x, list) else x for x in options))


class Evaluation(NamedTuple):
    """Value and gradient of a loss on one batch."""

    value: Tensor  # [B], scaled
    gradient: Tensor | None  # unscaled, of each value with respect to its sample, in the shape of x0_hat


def fused(loss: Description, x0_hat: Tensor, x0: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the loss of each sample, `[B]`, differentiable once with respect to `x0_hat`, and to nothing else."""
    wants_gradient = torch.is_grad_enabled() and x0_hat.requires_grad
    value: Tensor
    if torch.compiler.is_compiling():
        value, _ = torch.ops.specreg.value_and_gradient(x0_hat, x0, weights, loss.written(), wants_gradient)
    elif torch._C._are_functorch_transforms_active():  # the condition that torch's own apply() checks
        value, _ = _Fused.apply(x0_hat, x0, weights, loss, wants_gradient)
    else:
        value, _ = _Eager.apply(x0_hat, x0, weights, loss, wants_gradient)
    return value


def _evaluate(
    x0_hat: Tensor, x0: Tensor, weights: Tensor | None, loss: Description, scale: float, wants_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Return the scaled value `[B]` and the unscaled gradient, which is empty when it is not wanted."""
    with _checks.without_autocast(x0.device):
        value, gradient = loss.evaluate(x0_hat, x0, weights, wants_gradient, scale)
    return value, value.new_empty(0) if gradient is None else gradient


@lru_cache(256)
def _factor(loss: Description, shape: torch.Size) -> float:
    return loss.scale(shape)


class _Eager(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x0_hat: Tensor, x0: Tensor, weights: Tensor | None, loss: Description, wants_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        ctx.scale = _factor(loss, x0.shape)
        value, gradient = _evaluate(x0_hat, x0, weights, loss, ctx.scale, wants_gradient)
        ctx.save_for_backward(gradient)
        ctx.set_materialize_grads(False)
        return value, gradient

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return _backward(ctx, grads[0]), None, None, None, None


class _Fused(torch.autograd.Function):
    """The same function under torch.func transforms; supporting them takes longer than the loss of a small batch."""

    @staticmethod
    def forward(
        x0_hat: Tensor, x0: Tensor, weights: Tensor | None, loss: Description, wants_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        return _evaluate(x0_hat, x0, weights, loss, loss.scale(x0.shape), wants_gradient)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.scale = inputs[3].scale(inputs[0].shape)
        ctx.save_for_backward(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return _backward(ctx, grads[0]), None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        """Fold the mapped axis into the batch, evaluate, and unfold the results."""
        n = info.batch_size
        folded: list[Tensor | None] = []
        for x, axis in zip(inputs[:3], in_dims[:3], strict=True):
            if x is None:
                folded.append(None)
                continue
            x = x.unsqueeze(0).expand(n, *x.shape) if axis is None else x.movedim(axis, 0)
            if len(folded) == 2:  # weights may be shared by all samples
                x = x.expand(n, inputs[0].shape[0 if in_dims[0] != 0 else 1], *x.shape[2:])
            folded.append(x.flatten(0, 1))
        # Under vmap x0_hat does not report requires_grad; the unwrapped tensor does.
        wants_gradient = inputs[4] or (torch.is_grad_enabled() and inputs[0].requires_grad)
        value, gradient = _Fused.apply(*folded, inputs[3], wants_gradient)
        gradient = gradient.unflatten(0, (n, -1)) if gradient.numel() else gradient.expand(n, 0)
        return (value.unflatten(0, (n, -1)), gradient), (0, 0)


def _backward(ctx: Any, grad: Tensor | None) -> Tensor | None:
    if grad is None:
        return None
    (gradient,) = ctx.saved_tensors  # an output of the function, so that a graph of this depends on x0_hat
    scaled: Callable[..., Tensor] = _Scaled.apply if torch.is_grad_enabled() else _scaled
    return scaled(grad * ctx.scale, gradient)


def _scaled(grad: Tensor, gradient: Tensor) -> Tensor:
    """Return grad · gradient for `[B]` and `[B, C, *space]`."""
    return _checks.append_dims(grad, gradient.ndim) * gradient


class _Scaled(torch.autograd.Function):
    """`_scaled` where autograd records the backward pass; refuses a second derivative, which is not known."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, gradient: Tensor) -> Tensor:
        return _scaled(grad, gradient)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None]:
        raise RuntimeError("spectral losses are differentiable once; a second derivative was asked for")


@torch.library.custom_op(
    "specreg::value_and_gradient",
    mutates_args=(),
    schema="(Tensor x0_hat, Tensor x0, Tensor? weights, str loss, bool wants_gradient) -> (Tensor, Tensor)",
)
def _operator(
    x0_hat: Tensor, x0: Tensor, weights: Tensor | None, loss: str, wants_gradient: bool
) -> tuple[Tensor, Tensor]:
    described = _read(loss)
    value, gradient = _evaluate(x0_hat, x0, weights, described, described.scale(x0.shape), wants_gradient)
    return value, gradient.contiguous()  # the memory layout that the fake below promises


@_operator.register_fake
def _(x0_hat: Tensor, x0: Tensor, weights: Tensor | None, loss: str, wants_gradient: bool) -> tuple[Tensor, Tensor]:
    return x0.new_empty(x0.shape[0]), x0_hat.new_empty(x0_hat.shape if wants_gradient else 0)


def _operator_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.scale = _read(inputs[3]).scale(inputs[0].shape)
    ctx.save_for_backward(output[1])


def _operator_backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    return _backward(ctx, grad), None, None, None, None


_operator.register_autograd(_operator_backward, setup_context=_operator_context)


CHUNK = (2**20, 2**22)
"""Smallest and largest number of values in a chunk: smaller ones lose time to calls, larger ones miss the cache."""


def chunks(shape: torch.Size, ndim: int, *, whole_samples: bool, device: torch.device) -> list[tuple[slice, slice]]:
    """Return the chunks of `[B, R, *space]` to evaluate one after another, as slices of B and of R.

    On the CPU a chunk is about a quarter of a large batch, which bounds the memory for spectra and stays in the cache.
    The rows R, which are transformed independently, are divided only where a single sample is large. Other devices
    take the whole batch at once.
    """
    samples, rows = shape[:2]
    total = shape.numel()
    wanted = max(CHUNK[0], min(CHUNK[1], total // 4))
    if wanted >= total or device.type != "cpu":
        return [(slice(samples), slice(rows))]
    size = shape[-ndim:].numel()
    take = max(1, wanted // (rows * size))
    part = rows if whole_samples or take > 1 else max(1, min(rows, wanted // size))
    return [
        (slice(b, min(b + take, samples)), slice(r, min(r + part, rows)))
        for b in range(0, samples, take)
        for r in range(0, rows, part)
    ]
