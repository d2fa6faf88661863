"""Losses that compute their gradient beside their value, and how autograd, torch.compile and vmap see them.

All spectral losses here have a gradient in closed form that is nearly free once the value is known. `fused` hides that
behind one call: value and gradient come from `evaluate` of a loss's description, autograd keeps the one gradient
tensor, and the backward pass is one multiplication. Under torch.compile the same work is an opaque operator,
`specreg::value_and_gradient`, so that the graph of a whole training step stays whole. Such losses are differentiable
once.
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
    """A loss with its options as plain values; subclasses are frozen dataclasses of scalars and tuples of them."""

    kinds: ClassVar[dict[str, type[Description]]] = {}

    def __init_subclass__(cls) -> None:
        Description.kinds[cls.__name__] = cls

    @abstractmethod
    def evaluate(
        self, x0_hat: Tensor, x0: Tensor, weights: Tensor | None, wants_gradient: bool, scale: float
    ) -> Evaluation:
        """Value times `scale`, and gradient without it, for checked `[B, C, *space]` of one dtype.

        `weights` is what the loss defines it to be.
        """

    @abstractmethod
    def scale(self, shape: torch.Size) -> float:
        """What value and gradient are to be multiplied by, for samples of `shape` `[B, C, *space]`."""

    @abstractmethod
    def options(self) -> tuple[Any, ...]:
        """What the class is to be called with to get the same again."""

    def written(self) -> str:
        """The description as a string, which is what an operator's signature can carry."""
        return _written(type(self).__name__, self.options())


@traced_as_constant
def _written(kind: str, options: tuple[Any, ...]) -> str:
    return json.dumps([kind, *options])


@lru_cache(maxsize=256)
def _read(text: str) -> Description:
    kind, *options = json.loads(text)
    return Description.kinds[kind](*(tuple(x) if isinstance(x, list) else x for x in options))


class Evaluation(NamedTuple):
    """What a loss knows after one look at a batch."""

    value: Tensor  # [B], times the scale
    gradient: Tensor | None  # of each value without it with respect to its sample of x0_hat, in the shape of x0_hat


def fused(loss: Description, x0_hat: Tensor, x0: Tensor, weights: Tensor | None = None) -> Tensor:
    """The loss of each sample, `[B]`, differentiable once with respect to `x0_hat`, and to nothing else."""
    wants_gradient = torch.is_grad_enabled() and x0_hat.requires_grad
    value: Tensor
    if torch.compiler.is_compiling():
        value, _ = torch.ops.specreg.value_and_gradient(x0_hat, x0, weights, loss.written(), wants_gradient)
    elif torch._C._are_functorch_transforms_active():  # what torch's own apply() asks
        value, _ = _Fused.apply(x0_hat, x0, weights, loss, wants_gradient)
    else:
        value, _ = _Eager.apply(x0_hat, x0, weights, loss, wants_gradient)
    return value


def _evaluate(
    x0_hat: Tensor, x0: Tensor, weights: Tensor | None, loss: Description, scale: float, wants_gradient: bool
) -> tuple[Tensor, Tensor]:
    """The value `[B]`, and the gradient without its scale, empty when it is not wanted."""
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
    """The same under function transforms; being open to them costs more than an operation on a small batch."""

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
        """A mapped axis is only more samples: fold it into the batch and unfold what comes out."""
        n = info.batch_size
        folded: list[Tensor | None] = []
        for x, axis in zip(inputs[:3], in_dims[:3], strict=True):
            if x is None:
                folded.append(None)
                continue
            x = x.unsqueeze(0).expand(n, *x.shape) if axis is None else x.movedim(axis, 0)
            if len(folded) == 2:  # weights may be one for all samples
                x = x.expand(n, inputs[0].shape[0 if in_dims[0] != 0 else 1], *x.shape[2:])
            folded.append(x.flatten(0, 1))
        # Under vmap a tensor does not say whether it wants a gradient; here it does.
        wants_gradient = inputs[4] or (torch.is_grad_enabled() and inputs[0].requires_grad)
        value, gradient = _Fused.apply(*folded, inputs[3], wants_gradient)
        gradient = gradient.unflatten(0, (n, -1)) if gradient.numel() else gradient.expand(n, 0)
        return (value.unflatten(0, (n, -1)), gradient), (0, 0)


def _backward(ctx: Any, grad: Tensor | None) -> Tensor | None:
    if grad is None:
        return None
    (gradient,) = ctx.saved_tensors  # as an output: where a graph is built of this, it depends on x0_hat
    scaled: Callable[..., Tensor] = _Scaled.apply if torch.is_grad_enabled() else _scaled
    return scaled(grad * ctx.scale, gradient)


def _scaled(grad: Tensor, gradient: Tensor) -> Tensor:
    """grad · gradient, of `[B]` and `[B, C, *space]`."""
    return _checks.append_dims(grad, gradient.ndim) * gradient


class _Scaled(torch.autograd.Function):
    """The same where a graph is built of the backward pass: how `gradient` depends on x0_hat is not known."""

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
    return value, gradient.contiguous()  # a layout that the fake below can promise


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
"""Fewest and most values of a chunk: beneath, calls cost more than work; above, memory is fresh pages, not cache."""


def chunks(shape: torch.Size, ndim: int, *, whole_samples: bool, device: torch.device) -> list[tuple[slice, slice]]:
    """Parts of `[B, R, *space]` to work on one after another: slices of B and of R.

    On the CPU about a quarter of the batch at a time, if that is large, which bounds the memory for spectra and keeps
    the work in the cache; rows R, on which the transform acts one by one, are divided only where a single sample is
    large. Elsewhere all at once.
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
