"""diffusers' unconditional training loop with the spectral term: UNet2DModel, DDPMScheduler, Accelerate.

python examples/diffusers_unconditional.py
"""

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import DDPMScheduler, UNet2DModel

import specreg

torch.manual_seed(0)


def images(count: int) -> torch.Tensor:
    """Stand-in for your data: gratings of random direction and frequency, [count, 1, 16, 16]."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    k = torch.rand(count, 2, 1, 1) * 2
    return torch.cos(k[:, 0] * x + k[:, 1] * y).unsqueeze(1)


accelerator = Accelerator(cpu=True)
scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
model = UNet2DModel(
    sample_size=16,
    in_channels=1,
    out_channels=1,
    layers_per_block=1,
    block_out_channels=(32,),
    down_block_types=("DownBlock2D",),
    up_block_types=("UpBlock2D",),
)
model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=2e-3))
regularizer = specreg.SpectralRegularizer("amplitude", weight="auto")
accelerator.register_for_checkpointing(regularizer)  # λ is saved and restored with the rest

for step in range(40):
    x0 = images(8)
    noise, t = torch.randn_like(x0), torch.randint(scheduler.config.num_train_timesteps, (len(x0),))
    output = model(scheduler.add_noise(x0, noise, t), t).sample
    target = scheduler.get_velocity(x0, noise, t)
    loss = F.mse_loss(output, target)

    level = specreg.NoiseLevel.from_diffusers(scheduler, t)  # 1: the noise level of each image
    term = regularizer.from_output(output, target, level, prediction=scheduler, x0=x0, base_loss=loss)  # 2: the term

    accelerator.backward(loss + term.loss)
    optimizer.step()
    optimizer.zero_grad()
    if step % 13 == 0:
        print(f"step {step + 1}: base loss {loss:.3f}, spectral term {term.loss:.3f}, λ {term.lam:.3f}")
