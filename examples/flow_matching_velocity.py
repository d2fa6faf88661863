"""Meta's flow_matching with the spectral term: clean data at t = 1, the network predicts the velocity.

python examples/flow_matching_velocity.py
"""

import torch
from flow_matching.path import CondOTProbPath

import specreg

torch.manual_seed(0)


def images(count: int) -> torch.Tensor:
    """Stand-in for your data: gratings of random direction and frequency, [count, 1, 16, 16]."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    k = torch.rand(count, 2, 1, 1) * 2
    return torch.cos(k[:, 0] * x + k[:, 1] * y).unsqueeze(1)


network = torch.nn.Sequential(
    torch.nn.Conv2d(2, 32, 5, padding=2), torch.nn.SiLU(), torch.nn.Conv2d(32, 1, 5, padding=2)
)
optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
path = CondOTProbPath()
regularizer = specreg.SpectralRegularizer("haar", weight="auto")

for step in range(60):
    x_1 = images(16)
    sample = path.sample(t=torch.rand(len(x_1)), x_0=torch.randn_like(x_1), x_1=x_1)
    time = sample.t.reshape(-1, 1, 1, 1).expand_as(x_1)
    output = network(torch.cat([sample.x_t, time], dim=1))
    loss = (output - sample.dx_t).square().mean()

    level = specreg.NoiseLevel.flow(sample.t, data_at=1)  # 1: clean data are at t = 1
    term = regularizer.from_output(output, sample.dx_t, level, prediction="velocity", x0=x_1, base_loss=loss)  # 2

    optimizer.zero_grad()
    (loss + term.loss).backward()
    optimizer.step()
    if step % 19 == 0:
        print(f"step {step + 1}: base loss {loss:.3f}, spectral term {term.loss:.3f}, λ {term.lam:.3f}")
