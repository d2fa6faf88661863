"""Stand-in with the signatures of sd-scripts at commit 48d368f: most stand in its train_network.py."""

import argparse
from types import SimpleNamespace as Space

import tiny
import torch


class Scheduler:
    config = Space(num_train_timesteps=1000)
    alphas_cumprod = torch.cos(torch.linspace(0.01, 1.5, 1000)).square()

    def pair(self, x0, noise, timesteps):
        alpha = tiny.spread(self.alphas_cumprod[timesteps], x0)
        return alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise, alpha.sqrt() * noise - (1 - alpha).sqrt() * x0


class SdxlNetworkTrainer:
    def get_noise_pred_and_target(self, args, accelerator, noise_scheduler, latents, batch, text_encoder_conds, unet,
                                  network, weight_dtype, train_unet, is_train=True):  # fmt: skip
        noise, timesteps = torch.randn_like(latents), torch.randint(1000, (len(latents),))
        noisy, velocity = noise_scheduler.pair(latents, noise, timesteps)
        with torch.set_grad_enabled(is_train):
            noise_pred = unet(noisy, timesteps / 1000)
        return noise_pred, velocity if args.v_parameterization else noise, timesteps, None

    def process_batch(self, batch, text_encoders, unet, network, vae, noise_scheduler, vae_dtype, weight_dtype,
                      accelerator, args, text_encoding_strategy, tokenize_strategy, is_train=True,
                      train_text_encoder=True, train_unet=True):  # fmt: skip
        pred, target, _, _ = self.get_noise_pred_and_target(
            args, accelerator, noise_scheduler, batch["latents"], batch, [], unet, network, weight_dtype, train_unet,
            is_train=is_train,
        )  # fmt: skip
        self.base = ((pred - target).square().mean((1, 2, 3)) * batch["loss_weights"]).mean()
        return self.base

    def train(self, args):
        torch.manual_seed(0)
        network, scheduler = tiny.Network(), Scheduler()

        def step():
            batch = {"latents": tiny.latents(), "loss_weights": torch.ones(8)}
            given = (batch, [], network, None, None, scheduler, torch.float32, torch.float32, None, args, None, None)
            return self.process_batch(*given), self.base

        tiny.train(network, step)


def setup_parser():
    return argparse.ArgumentParser()
