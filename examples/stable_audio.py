"""stable-audio-tools' unconditional training wrapper with the spectral term, in Lightning; latents or sound.

python examples/stable_audio.py
"""

from typing import Any

import pytorch_lightning
import torch
from stable_audio_tools.models.diffusion import DiffusionModelWrapper
from stable_audio_tools.training.diffusion import DiffusionUncondTrainingWrapper
from torch.utils.data import DataLoader, TensorDataset

import specreg
from specreg.integrations.lightning import KeepRegularizer
from specreg.integrations.stable_audio import add_term

torch.manual_seed(0)


class Network(torch.nn.Module):
    """Stand-in for your network: x_t [B, C, T] and t [B] to v."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Conv1d(3, 32, 9, padding=4), torch.nn.Conv1d(32, 2, 9, padding=4)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return v in the shape of x."""
        time = t.reshape(-1, 1, 1).expand_as(x[:, :1])
        v: torch.Tensor = self.last(torch.nn.functional.silu(self.first(torch.cat([x, time], dim=1))))
        return v


class Print(pytorch_lightning.Callback):
    """Prints the losses now and then."""

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        """Print base loss and term of a step."""
        if index % 19 == 0 and (term := found.term) is not None:
            base = float(trainer.callback_metrics["train/mse_loss"])
            print(f"step {index + 1}: base loss {base:.3f}, spectral term {term.loss:.3f}, λ {term.lam:.3f}")


clips = torch.cos(torch.arange(256.0) * (torch.rand(960, 2, 1)))
model = DiffusionModelWrapper(Network(), io_channels=2, sample_size=256, sample_rate=16000, min_input_length=1)
wrapper = DiffusionUncondTrainingWrapper(model, lr=5e-3)
regularizer = specreg.SpectralRegularizer("amplitude", weight="auto")  # 1
found = add_term(wrapper, regularizer)  # 2: a module of its MultiLoss
callbacks: Any = [KeepRegularizer(regularizer), Print()]
trainer = pytorch_lightning.Trainer(
    max_epochs=1, accelerator="cpu", callbacks=callbacks, logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
)  # fmt: skip
trainer.fit(wrapper, DataLoader(TensorDataset(clips), batch_size=16))
