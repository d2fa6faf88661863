"""A module that keeps its state to itself: state dicts and averages of modules that hold it do not contain it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class OwnState(nn.Module):
    """Tensors named in `OWN` are plain attributes, not buffers, so a trainer that holds this module in its model keeps
    the checkpoints that it had before: strict loading, weight averages and DDP's broadcasts do not see them.

    `state_dict()` and `load_state_dict()` called on this module itself do have them, also those of its submodules: save
    them beside the model's, or let Accelerate do it (`accelerator.register_for_checkpointing(module)`).
    """

    OWN: ClassVar[tuple[str, ...]] = ()
    COUNTERS: ClassVar[tuple[str, ...]] = ()  # of OWN, those that a saved state may lack
    ON_CPU: ClassVar[tuple[str, ...]] = ()  # of OWN, those that stay there, since Python reads them in every call

    def _owned(self) -> Iterator[tuple[str, OwnState, str]]:
        for prefix, module in self.named_modules():
            if isinstance(module, OwnState):
                for name in module.OWN:
                    yield f"{prefix}.{name}" if prefix else name, module, name

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the state; without the own state where a module that holds this one collects its own."""
        found = super().state_dict(*args, **kwargs)
        if not args and kwargs.get("destination") is None:
            prefix = kwargs.get("prefix", "")
            found |= {prefix + key: getattr(module, name).detach() for key, module, name in self._owned()}
        return found

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load what `state_dict()` returned; RuntimeError for keys that are missing or unknown, if `strict`."""
        rest = dict(state_dict)
        with _changeable():
            for key, module, name in self._owned():
                if key in rest:
                    current: Tensor = getattr(module, name)
                    setattr(module, name, torch.as_tensor(rest.pop(key)).to(current, copy=True))
                elif strict and name not in module.COUNTERS:
                    raise RuntimeError(f"{type(self).__name__}: the state to load has no {key!r}")
        return super().load_state_dict(rest, strict=strict, assign=assign)

    def move_state(self, device: torch.device) -> None:
        """Move the own state to a device, that of submodules included."""
        with _changeable():
            for _, module, name in self._owned():
                if name not in module.ON_CPU:
                    setattr(module, name, getattr(module, name).to(device))


def _changeable() -> AbstractContextManager[object]:
    """Return a context whose tensors training may change, also where a validation in inference mode comes first."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
