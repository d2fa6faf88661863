"""Stand-in of OneTrainer's scripts/train.py at commit 23df383."""

from types import SimpleNamespace as Space

import tiny
import torch
from modules.modelSetup.BaseFluxSetup import BaseFluxSetup


class FluxLoRASetup(BaseFluxSetup):
    pass


def main():
    torch.manual_seed(0)
    setup, network = FluxLoRASetup(), tiny.Network()
    scheduler = Space(config={"num_train_timesteps": 1000})
    vae = Space(config=Space(scaling_factor=0.5, shift_factor=0.1))
    model, config = Space(noise_scheduler=scheduler, vae=vae), Space(masked_training=False)

    def step():
        x0, timestep = tiny.latents(), torch.randint(1000, (8,))
        noise, sigma = torch.randn_like(x0), (timestep + 1) / 1000
        predicted = network(x0.lerp(noise, tiny.spread(sigma, x0)), sigma)
        data = {"loss_type": "target", "timestep": timestep, "predicted": predicted, "target": noise - x0}
        batch = {"latent_image": 2 * x0 + 0.1, "loss_weight": torch.ones(8)}
        return setup.calculate_loss(model, batch, data, config), setup.base

    tiny.train(network, step)
