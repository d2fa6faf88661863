"""diffusers' text-to-image loop with the spectral term: latents, perturbed noise, min-SNR weights. A tiny random model.

python examples/diffusers_text_to_image.py
"""

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.training_utils import compute_snr

import specreg

torch.manual_seed(0)


def images(count: int) -> torch.Tensor:
    """Stand-in for your data: gratings of random direction and frequency, [count, 3, 32, 32]."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    k = torch.rand(count, 2, 3, 1, 1) * 2
    return torch.cos(k[:, 0] * x + k[:, 1] * y)


tiny = {"norm_num_groups": 4, "layers_per_block": 1}
down, up = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
vae = AutoencoderKL(down_block_types=down, up_block_types=up, block_out_channels=(8, 8), **tiny)
unet = UNet2DConditionModel(
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    block_out_channels=(16, 16), cross_attention_dim=16, attention_head_dim=4, **tiny,
)  # fmt: skip
scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
optimizer = torch.optim.AdamW(unet.parameters(), lr=2e-3)
regularizer = specreg.SpectralRegularizer("amplitude", weight="auto")

for step in range(40):
    with torch.no_grad():
        latents = vae.encode(images(8)).latent_dist.sample() * vae.config.scaling_factor
    text = torch.randn(8, 5, 16)  # what the text encoder returns
    noise, t = torch.randn_like(latents), torch.randint(scheduler.config.num_train_timesteps, (8,))
    perturbed = noise + 0.1 * torch.randn_like(noise)  # --input_perturbation: x_t has other noise than the target
    output = unet(scheduler.add_noise(latents, perturbed, t), t, text).sample
    snr = compute_snr(scheduler, t)
    min_snr = snr.clamp(max=5.0) / snr  # --snr_gamma
    loss = ((output - noise).square().mean((1, 2, 3)) * min_snr).mean()

    level = specreg.NoiseLevel.from_diffusers(scheduler, t)  # 1: the noise level of each image
    term = regularizer.from_output(output, noise, level, prediction=scheduler, x0=latents, base_loss=loss)  # 2

    (loss + term.loss).backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 13 == 0:
        print(f"step {step + 1}: base loss {loss:.3f}, spectral term {term.loss:.3f}, λ {term.lam:.3f}")
