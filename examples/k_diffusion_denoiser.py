"""k-diffusion with the spectral term: its Denoiser hides the network's output, which `specreg.watch` remembers.

python examples/k_diffusion_denoiser.py
"""

import torch
from k_diffusion.layers import Denoiser
from k_diffusion.utils import rand_log_normal

import specreg

torch.manual_seed(0)


def images(count: int) -> torch.Tensor:
    """Stand-in for your data: gratings of random direction and frequency, [count, 1, 16, 16]."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    k = torch.rand(count, 2, 1, 1) * 2
    return torch.cos(k[:, 0] * x + k[:, 1] * y).unsqueeze(1)


class Network(torch.nn.Module):
    """Stand-in for your inner model, which is given c_in·x_t and σ."""

    def __init__(self) -> None:
        super().__init__()
        layers = [torch.nn.Conv2d(2, 32, 5, padding=2), torch.nn.SiLU(), torch.nn.Conv2d(32, 1, 5, padding=2)]
        self.layers = torch.nn.Sequential(*layers)

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Return the output in the shape of x [B, 1, H, W]."""
        out: torch.Tensor = self.layers(torch.cat([x, sigma.log().reshape(-1, 1, 1, 1).expand_as(x)], dim=1))
        return out


model = Denoiser(Network(), sigma_data=0.7)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
regularizer = specreg.SpectralRegularizer("amplitude", weight="auto")
seen = specreg.watch(model.inner_model)

for step in range(60):
    x0 = images(16)
    noise, sigma = torch.randn_like(x0), rand_log_normal([len(x0)], loc=-1.2, scale=1.2)
    loss = model.loss(x0, noise, sigma).mean()

    level = specreg.NoiseLevel.edm(sigma)
    x_t = level.diffuse(x0, noise)  # 1: not seen.x_t, which is scaled by c_in
    x0_hat = specreg.recover_x0(seen.output, x_t, level, prediction="edm", sigma_data=model.sigma_data)  # 2
    term = regularizer(x0_hat, x0, level, base_loss=loss, output=seen.output)  # 3: the term

    (loss + term.loss).backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 19 == 0:
        print(f"step {step + 1}: base loss {loss:.3f}, spectral term {term.loss:.3f}, λ {term.lam:.3f}")
