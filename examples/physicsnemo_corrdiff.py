"""PhysicsNeMo with the spectral term: CorrDiff's residual loss, whose loop sums over pixels.

python examples/physicsnemo_corrdiff.py
"""

import torch

import specreg
from specreg.integrations.physicsnemo import SpectralResidualLoss

torch.manual_seed(0)


def fields(count: int) -> torch.Tensor:
    """Stand-in for your data: waves of random direction and wavenumber, [count, 1, 16, 16]."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    k = torch.rand(count, 2, 1, 1) * 2
    return torch.cos(k[:, 0] * x + k[:, 1] * y).unsqueeze(1)


class Denoiser(torch.nn.Module):
    """Stand-in for EDMPrecondSuperResolution: x_t, the coarse field and σ to x0_hat."""

    def __init__(self) -> None:
        super().__init__()
        layers = [torch.nn.Conv2d(2, 32, 5, padding=2), torch.nn.SiLU(), torch.nn.Conv2d(32, 1, 5, padding=2)]
        self.layers = torch.nn.Sequential(*layers)

    def forward(self, x: torch.Tensor, img_lr: torch.Tensor, sigma: torch.Tensor, **options: object) -> torch.Tensor:
        """Return x0_hat in the shape of x [B, 1, H, W]."""
        scale = (0.25 + sigma**2).sqrt()
        raw: torch.Tensor = self.layers(torch.cat([x / scale, img_lr], dim=1))
        return 0.25 / scale**2 * x + sigma * 0.5 / scale * raw


def regression(zeros: torch.Tensor, img_lr: torch.Tensor, **options: object) -> torch.Tensor:
    """Stand-in for the regression network, whose residual is what is diffused."""
    return 0.5 * img_lr


net = Denoiser()
optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
regularizer = specreg.SpectralRegularizer("amplitude", weight="auto")  # 1
loss_fn = SpectralResidualLoss(regularizer, regression)  # 2: instead of ResidualLoss(regression)

for step in range(60):
    x0 = fields(16)
    coarse = torch.nn.functional.avg_pool2d(x0, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    loss = loss_fn(net=net, img_clean=x0, img_lr=coarse)
    loss.sum().div(x0.numel()).backward()  # over pixels and samples, as their loop
    optimizer.step()
    optimizer.zero_grad()
    if step % 19 == 0 and (term := loss_fn.term) is not None:
        base = loss.mean() - term.loss / x0[0].numel()
        print(f"step {step + 1}: base loss {base:.3f}, spectral term {term.loss:.3f}, λ {term.lam:.3f}")
