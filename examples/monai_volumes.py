"""MONAI's DiffusionInferer on volumes with the spectral term; images are the same with spatial_dims=2.

python examples/monai_volumes.py
"""

import torch
from monai.inferers import DiffusionInferer
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDPMScheduler

import specreg

torch.manual_seed(0)


def volumes(count: int) -> torch.Tensor:
    """Stand-in for your data: waves of random direction and frequency, [count, 1, 16, 16, 16]."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(16.0)] * 3, indexing="ij"))
    k = torch.rand(count, 3, 1, 1, 1) * 1.5
    return torch.cos((k * grid).sum(1, keepdim=True))


model = DiffusionModelUNet(
    spatial_dims=3, in_channels=1, out_channels=1, channels=(8, 16), attention_levels=(False, False),
    num_res_blocks=1, norm_num_groups=4, num_head_channels=8,
)  # fmt: skip
scheduler = DDPMScheduler(num_train_timesteps=1000, prediction_type="v_prediction")
inferer = DiffusionInferer(scheduler)
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
regularizer = specreg.SpectralRegularizer("haar", weight="auto")

for step in range(40):
    x0 = volumes(6)
    noise, t = torch.randn_like(x0), torch.randint(scheduler.num_train_timesteps, (len(x0),))
    output = inferer(inputs=x0, diffusion_model=model, noise=noise, timesteps=t)
    target = scheduler.get_velocity(x0, noise, t)
    loss = torch.nn.functional.mse_loss(output, target)

    level = specreg.NoiseLevel.ddpm(scheduler.alphas_cumprod[t])  # 1: the noise level of each volume
    kind = scheduler.prediction_type
    term = regularizer.from_output(output, target, level, prediction=kind, x0=x0, base_loss=loss)  # 2: the term

    (loss + term.loss).backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 13 == 0:
        print(f"step {step + 1}: base loss {loss:.3f}, spectral term {term.loss:.3f}, λ {term.lam:.3f}")
