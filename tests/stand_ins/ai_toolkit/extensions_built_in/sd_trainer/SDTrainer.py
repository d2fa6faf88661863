"""Stand-in with the signatures of ai-toolkit at commit 27a03a9."""

from types import SimpleNamespace as Space

import tiny
import torch
from torch.nn import functional


class SDTrainer:
    sd = Space(is_flow_matching=True, x0_pred=False)

    def calculate_loss(self, noise_pred, noise, noisy_latents, timesteps, batch, mask_multiplier=1.0, prior_pred=None,
                       **kwargs):  # fmt: skip
        self.base = functional.mse_loss(noise_pred, noise - batch.latents)
        return self.base

    def run(self):
        torch.manual_seed(0)
        network = tiny.Network()

        def step():
            x0, sigma = tiny.latents(), torch.rand(8)
            noise, noisy = torch.randn_like(x0), None
            noisy = x0.lerp(noise, tiny.spread(sigma, x0))
            batch = Space(latents=x0)
            loss = self.calculate_loss(
                noise_pred=network(noisy, sigma), noise=noise, noisy_latents=noisy, timesteps=sigma * 1000, batch=batch,
                mask_multiplier=1.0, prior_pred=None,
            )  # fmt: skip
            return loss, self.base

        tiny.train(network, step)
