"""diffusers' loop for Flux with the spectral term: tokens are unpacked to latents for the term. Tiny, random.

python examples/diffusers_flux.py
"""

from typing import Any

import torch
from diffusers import FluxTransformer2DModel

import specreg

torch.manual_seed(0)
SIZE = 16


def latents(count: int) -> torch.Tensor:
    """Stand-in for your encoded images: gratings, [count, 4, SIZE, SIZE]."""
    y, x = torch.meshgrid(torch.arange(float(SIZE)), torch.arange(float(SIZE)), indexing="ij")
    k = torch.rand(count, 2, 4, 1, 1) * 2
    return torch.cos(k[:, 0] * x + k[:, 1] * y)


def packed(x: torch.Tensor) -> torch.Tensor:
    """Return latents [B, 4, SIZE, SIZE] as tokens [B, N, 16] of 2×2 squares, as FluxPipeline._pack_latents does."""
    cells = x.reshape(len(x), 4, SIZE // 2, 2, SIZE // 2, 2)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(len(x), -1, 16)


transformer = FluxTransformer2DModel(
    patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
    joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=(4, 6, 6),
)  # fmt: skip
optimizer = torch.optim.AdamW(transformer.parameters(), lr=3e-3)
regularizer = specreg.SpectralRegularizer("amplitude", weight="auto")
places = torch.stack(torch.meshgrid(torch.arange(SIZE // 2), torch.arange(SIZE // 2), indexing="ij"), -1).reshape(-1, 2)
image_ids, text_ids = torch.nn.functional.pad(places, (1, 0)).float(), torch.zeros(5, 3)

for step in range(60):
    x0 = latents(8)
    noise, sigma = torch.randn_like(x0), torch.randn(8).sigmoid()
    x_t = specreg.NoiseLevel.flow(sigma).diffuse(x0, noise)
    text = {"encoder_hidden_states": torch.randn(8, 5, 16), "pooled_projections": torch.randn(8, 16)}
    tokens = transformer(packed(x_t), timestep=sigma, img_ids=image_ids, txt_ids=text_ids, **text).sample
    output, target = specreg.unpack_tokens(tokens, SIZE, SIZE), noise - x0  # 1: latents again
    loss = (output - target).square().mean()

    level = specreg.NoiseLevel.flow(sigma)  # 2: the noise level of each image
    given: Any = {"prediction": "flow", "x0": x0, "x_t": x_t, "check": True}  # x_t for the first check
    term = regularizer.from_output(output, target, level, **given, base_loss=loss)  # 3: the term

    (loss + term.loss).backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 19 == 0:
        print(f"step {step + 1}: base loss {loss:.3f}, spectral term {term.loss:.3f}, λ {term.lam:.3f}")
