"""MONAI's LatentDiffusionInferer with the spectral term: it encodes inside, and x_t is what the network was given.

python examples/monai_latents.py
"""

from typing import Any

import torch
from monai.inferers import LatentDiffusionInferer
from monai.networks.nets import AutoencoderKL, DiffusionModelUNet
from monai.networks.schedulers import DDPMScheduler

import specreg

torch.manual_seed(0)


def images(count: int) -> torch.Tensor:
    """Stand-in for your data: gratings of random direction and frequency, [count, 1, 32, 32]."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    k = torch.rand(count, 2, 1, 1) * 2
    return torch.cos(k[:, 0] * x + k[:, 1] * y).unsqueeze(1)


autoencoder = AutoencoderKL(
    spatial_dims=2, in_channels=1, out_channels=1, channels=(8, 8), latent_channels=3, num_res_blocks=1,
    norm_num_groups=4, attention_levels=(False, False), with_encoder_nonlocal_attn=False,
    with_decoder_nonlocal_attn=False,
)  # fmt: skip
model = DiffusionModelUNet(
    spatial_dims=2, in_channels=3, out_channels=3, channels=(16, 16), attention_levels=(False, False),
    num_res_blocks=1, norm_num_groups=4, num_head_channels=8,
)  # fmt: skip
scheduler = DDPMScheduler(num_train_timesteps=1000, schedule="scaled_linear_beta")
inferer = LatentDiffusionInferer(scheduler, scale_factor=1.0)
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
regularizer = specreg.SpectralRegularizer("amplitude", weight="auto")
seen = specreg.watch(model)

for step in range(40):
    noise, t = torch.randn(8, 3, 16, 16), torch.randint(scheduler.num_train_timesteps, (8,))
    output = inferer(images(8), autoencoder, model, noise, t)
    loss = torch.nn.functional.mse_loss(output, noise)

    level = specreg.NoiseLevel.ddpm(scheduler.alphas_cumprod[t])  # 1: the noise level of each image
    given: Any = {"prediction": scheduler.prediction_type, "x_t": seen.x_t}  # encoding again would draw other latents
    term = regularizer.from_output(output, noise, level, **given, base_loss=loss)  # 2: the term

    (loss + term.loss).backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 13 == 0:
        print(f"step {step + 1}: base loss {loss:.3f}, spectral term {term.loss:.3f}, λ {term.lam:.3f}")
