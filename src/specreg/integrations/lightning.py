"""Lightning: a callback that keeps a regularizer's state in Lightning's checkpoints.

The regularizer may be an attribute of the module: its state is not in the module's state dict, so checkpoints from
before still load. Works under either name of the package, `lightning` or `pytorch_lightning`.
"""

from __future__ import annotations

from typing import Any

try:
    from lightning.pytorch.callbacks import Callback
except ImportError:  # the same package under its older name, which trainers of others still ask for
    from pytorch_lightning.callbacks import Callback  # type: ignore[assignment]

from specreg import SpectralRegularizer


class KeepRegularizer(Callback):
    """Saves λ and the ramp of `regularizer` in every checkpoint of the trainer, and restores them.

    Several regularizers take a callback each, with a `name` of their own.
    """

    def __init__(self, regularizer: SpectralRegularizer, name: str = "regularizer"):
        super().__init__()
        self.regularizer, self.name = regularizer, name

    @property
    def state_key(self) -> str:
        """Name of the state in a checkpoint."""
        return f"specreg.{self.name}"

    def state_dict(self) -> dict[str, Any]:
        """Return the regularizer's state."""
        found: dict[str, Any] = self.regularizer.state_dict()
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the regularizer's state."""
        self.regularizer.load_state_dict(state_dict)
