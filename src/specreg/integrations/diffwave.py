"""lmnt-com's DiffWave: its learner with the spectral term. Read from diffwave 0.1.7 and its repository's 0.1.8.

Its command builds the learner by name, so a launcher of one's own puts this class in its place, at the top level of the
script, which the processes of several GPUs import again:

    import diffwave.learner
    from specreg.integrations.diffwave import SpectralLearner

    diffwave.learner.DiffWaveLearner = SpectralLearner
"""

from __future__ import annotations

from typing import Any, ClassVar

from diffwave.learner import DiffWaveLearner
from torch import Tensor, nn

from specreg import NoiseLevel, SpectralRegularizer, SpectralTerm
from specreg.watch import KeepsLastCall


class SpectralLearner(KeepsLastCall, DiffWaveLearner):  # type: ignore[misc]
    """DiffWaveLearner whose loss has the term of `regularizer`; λ and its ramp are in the learner's checkpoints.

    Args:
        *args: DiffWaveLearner's.
        regularizer: the term; None for `SpectralRegularizer("amplitude", weight="auto")`. Override `build` to say
            which, where the learner is built by diffwave's own command.
        **kwargs: DiffWaveLearner's.

    The last term is in `term`, for logging.
    """

    OF_CALL: ClassVar = ("term", "_given")

    def __init__(self, *args: Any, regularizer: SpectralRegularizer | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.regularizer = regularizer if regularizer is not None else self.build()
        self.term: SpectralTerm | None = None
        self._given: tuple[Tensor, Tensor] | None = None
        inner: Any = getattr(self.model, "module", self.model)  # under DDP the module that the hook stays on
        inner.register_forward_hook(self._remember, with_kwargs=True)
        self._base: Any = self.loss_fn  # type: ignore[has-type]
        self.loss_fn = self._loss

    @staticmethod
    def build() -> SpectralRegularizer:
        """Return the regularizer of a learner that was given none."""
        return SpectralRegularizer("amplitude", weight="auto")

    def _remember(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        audio, *rest = (*args, *kwargs.values())  # spectrogram and step; 0.1.8 has them the other way round
        (step,) = (x for x in rest if x is not None and not x.is_floating_point())
        self._given = (audio, step)

    def _loss(self, noise: Tensor, predicted: Tensor) -> Tensor:
        """Return L1 of ε `[B, T]` and the term, which is computed in float32 whatever autocast says."""
        base: Tensor = self._base(noise, predicted)
        if self._given is None:
            raise RuntimeError("expected the network to be called before the loss; it was not")
        (audio, step), self._given = self._given, None
        level = NoiseLevel.ddpm(self.noise_level.to(step.device)[step])  # its noise_level is ᾱ
        self.term = self.regularizer.from_output(
            predicted, noise, level, prediction="epsilon", x_t=audio, base_loss=base
        )
        return base + self.term.loss

    def state_dict(self) -> dict[str, Any]:
        """Return the learner's state, with the regularizer's under "specreg"."""
        return {**super().state_dict(), "specreg": self.regularizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state; one that was saved without the term has no λ, which then starts anew."""
        super().load_state_dict(state_dict)
        if "specreg" in state_dict:
            self.regularizer.load_state_dict(state_dict["specreg"])
