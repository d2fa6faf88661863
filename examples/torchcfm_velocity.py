"""torchcfm (conditional flow matching, here with optimal-transport pairs) with the spectral term.

The data are at t = 1 and the network predicts data minus noise. Optimal transport matches the pairs again, so that the
batch's own noise is not that of the target: the term takes target and x_t, which belong together.

python examples/torchcfm_velocity.py
"""

import torch
from torchcfm.conditional_flow_matching import ExactOptimalTransportConditionalFlowMatcher

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
matcher = ExactOptimalTransportConditionalFlowMatcher(sigma=0.0)
regularizer = specreg.SpectralRegularizer("amplitude", weight="auto")

for step in range(60):
    data = images(16)
    t, x_t, target = matcher.sample_location_and_conditional_flow(torch.randn_like(data), data)
    output = network(torch.cat([x_t, t.reshape(-1, 1, 1, 1).expand_as(x_t)], dim=1))
    loss = (output - target).square().mean()

    level = specreg.NoiseLevel.flow(t, data_at=1)  # 1: clean data are at t = 1
    term = regularizer.from_output(output, target, level, prediction="velocity", x_t=x_t, base_loss=loss)  # 2: the term

    optimizer.zero_grad()
    (loss + term.loss).backward()
    optimizer.step()
    if step % 19 == 0:
        print(f"step {step + 1}: base loss {loss:.3f}, spectral term {term.loss:.3f}, λ {term.lam:.3f}")
