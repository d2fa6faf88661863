"""Seams for trainers that hide what the term needs: the last call of a network, and tokens that were images."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, ClassVar

from torch import Tensor, nn

NAMES = ("x_t", "x", "sample", "hidden_states", "noisy_latents", "input", "inputs", "img")
"""Keywords under which networks take the noisy sample; the first that a call has is taken, else its first tensor."""


class KeepsLastCall:
    """An object that keeps tensors of its last call, which its copies and pickles leave out.

    A tensor with a graph can be neither copied nor pickled, and such an object may hang on a network as a hook, to be
    copied with it for a weight average.
    """

    OF_CALL: ClassVar[tuple[str, ...]] = ("term",)

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes, with None for those of the last call."""
        parent = getattr(super(), "__getstate__", None)  # a module's own; object has one from Python 3.11 on
        state: dict[str, Any] = dict(parent() if parent is not None else vars(self))
        return state | dict.fromkeys(set(self.OF_CALL) & state.keys())


class Watched(KeepsLastCall):
    """What a network was given and returned in its last call; see `watch`."""

    OF_CALL: ClassVar = ("_last",)

    def __init__(self, network: nn.Module, name: str | None):
        self._name = name
        self._last: tuple[Tensor, Tensor] | None = None
        self._handle = network.register_forward_hook(self._remember, with_kwargs=True)

    def _remember(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given = _given(args, kwargs, self._name)
        self._last = (given, _returned(output))

    @property
    def x_t(self) -> Tensor:
        """The noisy sample as the network was given it, after any scaling of its input."""
        return self._both()[0]

    @property
    def output(self) -> Tensor:
        """What the network returned, with its graph: a tensor, the first of a tuple or diffusers output, `.sample`."""
        return self._both()[1]

    def _both(self) -> tuple[Tensor, Tensor]:
        if self._last is None:
            raise RuntimeError("watch: the network was not called since; expected its forward to have run once")
        return self._last

    def clear(self) -> None:
        """Forget the last call, and with it the graph that its output keeps alive."""
        self._last = None

    def remove(self) -> None:
        """Stop watching."""
        self._handle.remove()
        self.clear()

    def __enter__(self) -> Watched:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def watch(network: nn.Module, *, name: str | None = None) -> Watched:
    """Return an object that remembers (x_t, output) of the last call of `network`, for trainers that hide them.

    Args:
        network: the module that the trainer calls; of nested modules, the innermost that takes the noisy sample.
        name: keyword under which it takes the noisy sample; None for its first positional tensor, or one of `NAMES`.

    Example:
        >>> import torch, specreg
        >>> network = torch.nn.Conv2d(1, 1, 3, padding=1)
        >>> with specreg.watch(network) as seen:
        ...     loss = network(torch.randn(2, 1, 8, 8)).square().mean()
        ...     seen.x_t.shape, seen.output.requires_grad
        (torch.Size([2, 1, 8, 8]), True)
    """
    return Watched(network, name)


def _given(args: Sequence[Any], kwargs: dict[str, Any], name: str | None) -> Tensor:
    if name is not None:
        if not isinstance(kwargs.get(name), Tensor):
            raise TypeError(
                f"watch: the network was not called with a tensor {name}=; got {', '.join(kwargs) or 'no keyword'}"
            )
        found: Tensor = kwargs[name]
        return found
    named = [kwargs[key] for key in NAMES if key in kwargs]
    for value in (*args, *named, *kwargs.values()):
        if isinstance(value, Tensor):
            return value
    raise TypeError("watch: the network was called without a tensor")


def _returned(output: Any) -> Tensor:
    while not isinstance(output, Tensor):
        if isinstance(output, dict):
            output = next(iter(output.values()), None)
        elif isinstance(output, (tuple, list)) and output:
            output = output[0]
        elif isinstance(getattr(output, "sample", None), Tensor):
            output = output.sample
        else:
            raise TypeError(f"watch: expected the network to return a tensor; got {type(output).__name__}")
    return output


def unpack_tokens(x: Tensor, height: int, width: int, *, patch: int = 2) -> Tensor:
    """Return latents `[B, C, height, width]` from tokens `[B, N, C·patch²]` of patches, as Flux packs them.

    A token holds a square of `patch`² positions, channels first: value c·patch² + i·patch + j is channel c at row i and
    column j. Half of Nyquist is lost to a spectral loss on tokens that are not unpacked.

    Raises ValueError for sizes that do not fit.
    """
    if x.ndim != 3 or height % patch or width % patch:
        raise ValueError(
            f"expected tokens [B, N, C·{patch}²] of a height and width in multiples of {patch}; got "
            f"{list(x.shape)} for {height}×{width}"
        )
    rows, columns = height // patch, width // patch
    if x.shape[1] != rows * columns or x.shape[2] % patch**2:
        raise ValueError(
            f"expected {rows * columns} tokens of a multiple of {patch**2} values for {height}×{width}; "
            f"got {list(x.shape)}"
        )
    channels = x.shape[2] // patch**2
    folded = x.reshape(len(x), rows, columns, channels, patch, patch).permute(0, 3, 1, 4, 2, 5)
    return folded.reshape(len(x), channels, height, width)
