"""lmnt-com's DiffWave learner with the spectral term, put in the place of its own, as a launcher does.

python examples/diffwave_learner.py
"""

import tempfile

import diffwave.learner
import torch
from diffwave.model import DiffWave
from diffwave.params import params

from specreg.integrations.diffwave import SpectralLearner

torch.manual_seed(0)


class Learner(SpectralLearner):
    """The learner, which also prints."""

    def train_step(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of a step."""
        loss: torch.Tensor = super().train_step(features).detach()
        if self.step % 13 == 0 and (term := self.term) is not None:
            base = loss - term.loss
            print(f"step {self.step + 1}: base loss {base:.3f}, spectral term {term.loss:.3f}, λ {term.lam:.3f}")
        return loss


class Clips(list[dict[str, torch.Tensor]]):
    """Stand-in for your data set: clips of 1,024 samples with their log-mel."""

    def __init__(self) -> None:
        super().__init__()
        spectrogram = torch.zeros(12, params.n_mels, 1024 // params.hop_samples)
        for _ in range(40):
            audio = torch.cos(torch.arange(1024.0) * torch.rand(12, 1))
            self.append({"audio": audio, "spectrogram": spectrogram})


diffwave.learner.DiffWaveLearner = Learner  # its command would now train with the term
params.override({"residual_layers": 4, "residual_channels": 16, "learning_rate": 5e-3, "unconditional": False})
network = DiffWave(params)
torch.nn.init.normal_(network.output_projection.weight, std=0.02)  # the package starts it at 0: no gradient in step 1
optimizer = torch.optim.Adam(network.parameters(), lr=params.learning_rate)
with tempfile.TemporaryDirectory() as folder:
    learner = diffwave.learner.DiffWaveLearner(folder, network, Clips(), optimizer, params)
    learner._write_summary = lambda *given: None  # TensorBoard
    learner.train(max_steps=40)
