"""diffusers' loop for Stable Diffusion 3 with the spectral term: a flow, whose output is made x0. Tiny, random.

python examples/diffusers_sd3.py
"""

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_loss_weighting_for_sd3

import specreg

torch.manual_seed(0)
PRECONDITION = True  # --precondition_outputs, the script's default


def latents(count: int) -> torch.Tensor:
    """Stand-in for your encoded images: gratings, [count, 4, 16, 16]."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    k = torch.rand(count, 2, 4, 1, 1) * 2
    return torch.cos(k[:, 0] * x + k[:, 1] * y)


transformer = SD3Transformer2DModel(
    sample_size=16, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=4,
    joint_attention_dim=16, caption_projection_dim=32, pooled_projection_dim=16, pos_embed_max_size=16,
)  # fmt: skip
scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
optimizer = torch.optim.AdamW(transformer.parameters(), lr=2e-3)
regularizer = specreg.SpectralRegularizer("amplitude", weight="auto")

for step in range(60):
    x0 = latents(8)
    noise = torch.randn_like(x0)
    u = compute_density_for_timestep_sampling("logit_normal", 8, logit_mean=0.0, logit_std=1.0)
    index = (u * scheduler.config.num_train_timesteps).long()
    t, sigma = scheduler.timesteps[index], scheduler.sigmas[index].reshape(-1, 1, 1, 1)
    x_t = (1 - sigma) * x0 + sigma * noise
    text = {"encoder_hidden_states": torch.randn(8, 5, 16), "pooled_projections": torch.randn(8, 16)}
    output = transformer(x_t, timestep=t, **text).sample
    predicted, target = (x_t - sigma * output, x0) if PRECONDITION else (output, noise - x0)
    weighting = compute_loss_weighting_for_sd3("sigma_sqrt", sigma).clamp(max=100)
    loss = (weighting * (predicted - target).square()).mean()

    level = specreg.NoiseLevel.flow(sigma)  # 1: the noise level, after the scheduler's shift
    given: Any = {"prediction": "x0" if PRECONDITION else "flow", "x0": x0, "x_t": x_t, "check": True}
    term = regularizer.from_output(predicted, target, level, **given, base_loss=loss)  # 2: the term

    (loss + term.loss).backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 19 == 0:
        print(f"step {step + 1}: base loss {loss:.3f}, spectral term {term.loss:.3f}, λ {term.lam:.3f}")
