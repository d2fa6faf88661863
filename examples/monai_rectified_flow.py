"""MONAI's rectified flow with the spectral term: clean data are at t = 0, and the target is x0 − ε, not ε − x0.

python examples/monai_rectified_flow.py
"""

from typing import Any

import torch
from monai.inferers import DiffusionInferer
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import RFlowScheduler

import specreg

torch.manual_seed(0)


def images(count: int) -> torch.Tensor:
    """Stand-in for your data: gratings of random direction and frequency, [count, 1, 16, 16]."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    k = torch.rand(count, 2, 1, 1) * 2
    return torch.cos(k[:, 0] * x + k[:, 1] * y).unsqueeze(1)


model = DiffusionModelUNet(
    spatial_dims=2, in_channels=1, out_channels=1, channels=(16, 16), attention_levels=(False, False),
    num_res_blocks=1, norm_num_groups=4, num_head_channels=8,
)  # fmt: skip
scheduler = RFlowScheduler(num_train_timesteps=1000, use_discrete_timesteps=False)
inferer = DiffusionInferer(scheduler)
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
regularizer = specreg.SpectralRegularizer("amplitude", weight="auto")
seen = specreg.watch(model)

for step in range(40):
    x0 = images(8)
    noise, t = torch.randn_like(x0), scheduler.sample_timesteps(x0)
    output, target = inferer(inputs=x0, diffusion_model=model, noise=noise, timesteps=t), x0 - noise
    loss = torch.nn.functional.mse_loss(output, target)

    level = specreg.NoiseLevel.flow(t / scheduler.num_train_timesteps)  # 1: the noise level of each image
    given: Any = {"prediction": "velocity", "x0": x0, "x_t": seen.x_t, "check": True}  # x_t for the first check
    term = regularizer.from_output(output, target, level, **given, base_loss=loss)  # 2: the term

    (loss + term.loss).backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 13 == 0:
        print(f"step {step + 1}: base loss {loss:.3f}, spectral term {term.loss:.3f}, λ {term.lam:.3f}")
