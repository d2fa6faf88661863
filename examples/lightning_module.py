"""A Lightning module with the spectral term; a callback keeps λ in the checkpoints.

python examples/lightning_module.py
"""

import lightning
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

import specreg
from specreg.diffusion import alphas_cumprod
from specreg.integrations.lightning import KeepRegularizer

torch.manual_seed(0)


class Diffusion(lightning.LightningModule):
    """Predicts v, with σ as a channel; your network and data take the place of the convolutions and gratings."""

    def __init__(self) -> None:
        super().__init__()
        self.network = torch.nn.Sequential(
            torch.nn.Conv2d(2, 32, 5, padding=2), torch.nn.SiLU(), torch.nn.Conv2d(32, 1, 5, padding=2)
        )
        self.alphas_cumprod = alphas_cumprod("cosine", 1000).float()
        self.regularizer = specreg.SpectralRegularizer("amplitude", weight="auto")

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        """Return the loss of a batch of images [B, 1, 16, 16]."""
        (x0,) = batch
        noise, t = torch.randn_like(x0), torch.randint(1000, (len(x0),))
        level = specreg.NoiseLevel.ddpm(self.alphas_cumprod[t])
        sigma = level.sigma[:, None, None, None].expand_as(x0)
        output = self.network(torch.cat([level.diffuse(x0, noise), sigma], dim=1))
        target = specreg.diffusion.target(x0, noise, level, prediction="v")
        loss = F.mse_loss(output, target)
        term = self.regularizer.from_output(output, target, level, prediction="v", x0=x0, base_loss=loss)
        if index % 13 == 0:
            print(f"step {index + 1}: base loss {loss:.3f}, spectral term {term.loss:.3f}, λ {term.lam:.3f}")
        return loss + term.loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=2e-3)


y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
k = torch.rand(320, 2, 1, 1) * 2
images = torch.cos(k[:, 0] * x + k[:, 1] * y).unsqueeze(1)
module = Diffusion()
trainer = lightning.Trainer(
    max_epochs=1, accelerator="cpu", callbacks=[KeepRegularizer(module.regularizer)], logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
)  # fmt: skip
trainer.fit(module, DataLoader(TensorDataset(images), batch_size=8))
