"""anemoi-training with the spectral term: its CombinedLoss built from YAML by its own factory, under its EDM weights.

python examples/anemoi_training.py
"""

import torch
from anemoi.models.transport.paths import edm_loss_weight
from anemoi.training.losses.loss import get_loss_function
from anemoi.training.utils.enums import TensorDim
from omegaconf import OmegaConf

import specreg.integrations.anemoi  # noqa: F401  the YAML names a class in it

TRAINING_LOSS = """
_target_: anemoi.training.losses.combined.CombinedLoss
loss_weights: [1.0, 0.1]
losses:
  - {_target_: anemoi.training.losses.WeightedMSELoss, scalers: [node_weights]}
  - {_target_: specreg.integrations.anemoi.SpectralLoss, loss: "fft:amplitude", y_dim: 16, x_dim: 32, scalers: []}
"""

torch.manual_seed(0)
scalers = {"node_weights": (TensorDim.GRID, torch.full((512,), 1 / 512))}
loss_fn = get_loss_function(OmegaConf.create(TRAINING_LOSS), scalers=scalers)
net = torch.nn.Sequential(torch.nn.Conv2d(2, 32, 5, padding=2), torch.nn.SiLU(), torch.nn.Conv2d(32, 2, 5, padding=2))
optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)


def fields(count: int) -> torch.Tensor:
    """Stand-in for your data: waves of two variables, [count, times 1, members 1, 512 grid points, 2]."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(32.0), indexing="ij")
    k = torch.rand(count, 2, 2, 1, 1) * 2
    return torch.cos(k[:, 0] * x + k[:, 1] * y).reshape(count, 1, 1, 2, 512).transpose(-1, -2)


def denoise(x_t: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Stand-in for the model: EDM's preconditioning around a small network, σ_data = 1."""
    scale = (1 + sigma**2).sqrt()
    planes = (x_t / scale).transpose(-1, -2).reshape(-1, 2, 16, 32)
    raw = net(planes).reshape(-1, 1, 1, 2, 512).transpose(-1, -2)
    denoised: torch.Tensor = x_t / scale**2 + sigma / scale * raw
    return denoised


for step in range(60):
    target = fields(16)
    sigma = (torch.randn(16, 1, 1, 1, 1) * 1.2 - 1.2).exp()
    pred = denoise(target + sigma * torch.randn_like(target), sigma)
    loss = loss_fn(pred, target, weights=edm_loss_weight(sigma, 1.0))  # as its EDM objective does
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 19 == 0:
        base = loss_fn.losses[0](pred, target, weights=edm_loss_weight(sigma, 1.0)).item()
        print(f"step {step + 1}: base loss {base:.3f}, spectral term {loss.item() - base:.3f}")
