"""The spectral term in any PyTorch training loop. The two lines that matter are marked.

python examples/minimal.py
"""

import torch

import specreg
from specreg.diffusion import alphas_cumprod

torch.manual_seed(0)
schedule = alphas_cumprod("cosine", 1000).float()


def images(count: int) -> torch.Tensor:
    """Stand-in for your data: gratings of random direction and frequency, [count, 1, 32, 32]."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    k = torch.rand(count, 2, 1, 1) * 2
    return torch.cos(k[:, 0] * x + k[:, 1] * y).unsqueeze(1)


class Denoiser(torch.nn.Module):
    """Stand-in for your network: predicts v."""

    def __init__(self, width: int = 32):
        super().__init__()
        self.time = torch.nn.Linear(1, width)
        self.first = torch.nn.Conv2d(1, width, 5, padding=2)
        self.last = torch.nn.Conv2d(width, 1, 5, padding=2)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(x_t) + self.time(t[:, None] / 1000)[:, :, None, None])
        output: torch.Tensor = self.last(hidden)
        return output


model = Denoiser()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
regularizer = specreg.SpectralRegularizer("amplitude", weight=specreg.AutoWeight(2))  # 1: once

for step in range(61):
    x0 = images(16)
    t = torch.randint(1000, (len(x0),))
    noise = torch.randn_like(x0)
    level = specreg.NoiseLevel.ddpm(schedule[t])
    x_t = level.diffuse(x0, noise)
    output = model(x_t, t)
    target = level.alpha[:, None, None, None] * noise - level.sigma[:, None, None, None] * x0
    base_loss = torch.nn.functional.mse_loss(output, target)

    # 2: how far the spectrum of the predicted clean sample is off
    term = regularizer.from_output(output, target, level, prediction="v", x0=x0, base_loss=base_loss)
    loss = base_loss + term.loss

    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        print(f"step {step}: base loss {base_loss:.3f}, spectral term {term.loss:.3f}, λ {term.lam:.3f}")
