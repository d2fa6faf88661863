"""denoising-diffusion-pytorch with the spectral term, without a change to its GaussianDiffusion, which hides x_t.

python examples/lucidrains.py
"""

import torch
from denoising_diffusion_pytorch import GaussianDiffusion, Unet

import specreg

torch.manual_seed(0)


def images(count: int) -> torch.Tensor:
    """Stand-in for your data: gratings in [0, 1], as this package takes them, [count, 1, 16, 16]."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    k = torch.rand(count, 2, 1, 1) * 2
    return 0.5 + 0.5 * torch.cos(k[:, 0] * x + k[:, 1] * y).unsqueeze(1)


model = Unet(dim=16, dim_mults=(1, 2), channels=1, flash_attn=False)
diffusion = GaussianDiffusion(model, image_size=16, timesteps=1000, objective="pred_v")
optimizer = torch.optim.Adam(diffusion.parameters(), lr=2e-3)
regularizer = specreg.SpectralRegularizer("amplitude", weight="auto")
seen = specreg.watch(model)  # remembers what the network was given and returned

for step in range(40):
    x = images(16)
    t = torch.randint(1000, (len(x),))
    loss = diffusion(x, times=t)

    level = specreg.NoiseLevel.ddpm(diffusion.alphas_cumprod[t])
    x0_hat = specreg.recover_x0(seen.output, seen.x_t, level, prediction=diffusion.objective)  # 1: pred_v is known
    known = {"prediction": diffusion.objective, "base_loss": loss, "output": seen.output}
    term = regularizer(x0_hat, diffusion.normalize(x), level, **known)  # 2: the term

    optimizer.zero_grad()
    (loss + term.loss).backward()
    optimizer.step()
    if step % 13 == 0:
        print(f"step {step + 1}: base loss {loss:.3f}, spectral term {term.loss:.3f}, λ {term.lam:.3f}")
