"""Stand-in with the signatures of musubi-tuner at commit 30c658c: they stand in its training/trainer_base.py."""

from types import SimpleNamespace as Space

import tiny
import torch
from torch.nn import functional


class ZImageNetworkTrainer:
    def process_batch(self, args, accelerator, transformer, network, batch, latents, noise, noise_scheduler, dit_dtype,
                      network_dtype, vae, global_step):  # fmt: skip
        sigma = torch.randn(len(latents)).sigmoid()
        noisy, timesteps = latents.lerp(noise, tiny.spread(sigma, latents)), sigma * 1000 + 1
        output = self.call_dit(args, accelerator, transformer, latents, batch, noise, noisy, timesteps, network_dtype)
        return self.compute_loss(args, output, timesteps, noise_scheduler, dit_dtype, network_dtype, global_step)

    def call_dit(self, args, accelerator, transformer, latents, batch, noise, noisy_model_input, timesteps,
                 network_dtype, **kwargs):  # fmt: skip
        pred = transformer(noisy_model_input, (1000 - timesteps) / 1000)
        return Space(pred=pred, target=latents - noise, extra={})  # the other way round than elsewhere

    def compute_loss(self, args, output, timesteps, noise_scheduler, dit_dtype, network_dtype, global_step):
        self.base = functional.mse_loss(output.pred.to(network_dtype), output.target)
        return self.base, {}

    def train(self, args):
        network = tiny.Network()

        def step():
            x0 = tiny.latents()
            given = (args, None, network, None, {}, x0, torch.randn_like(x0), None, torch.float32, torch.float32)
            return self.process_batch(*given, None, 0)[0], self.base

        tiny.train(network, step)


def main():
    torch.manual_seed(0)
    ZImageNetworkTrainer().train(None)
