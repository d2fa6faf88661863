"""Stand-in of SimpleTuner's train.py at commit bc8e6ab, which trains when it is run as a script."""

import tiny
import torch
from simpletuner.helpers.models.flux.model import Flux
from torch.nn import functional


def train():
    torch.manual_seed(0)
    model, network = Flux(), tiny.Network()

    def step():
        x0 = tiny.latents()
        batch = {"latents": x0, "noise": torch.randn_like(x0), "sigmas": torch.rand(8, 1, 1, 1)}
        batch["noisy_latents"] = x0.lerp(batch["noise"], batch["sigmas"])
        output = {"model_prediction": network(batch["noisy_latents"], batch["sigmas"])}
        base = functional.mse_loss(output["model_prediction"], model.get_prediction_target(batch))
        return model.auxiliary_loss(prepared_batch=batch, model_output=output, loss=base)[0], base

    tiny.train(network, step)


if __name__ == "__main__":
    train()
