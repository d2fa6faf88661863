"""Stand-in of diffusion-pipe's train.py at commit 8f83dbf, which trains when it is run as a script."""

import tiny
import torch
from torch.nn import functional

if __name__ == "__main__":
    from models import flux

    torch.manual_seed(0)
    model = flux.FluxPipeline({"model": {"type": "flux"}})
    network, loss_fn = tiny.Network(), model.get_loss_fn()

    def step():
        features, label = model.prepare_inputs({"latents": tiny.latents()})
        x_t, t = features[0], features[3]
        cells = x_t.reshape(8, 8, 8, 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(8, 4, 16, 16)
        output = flux.pack(network(cells, t))
        label = tuple(torch.tensor([]) if part is None else part for part in label)  # as its batches are split
        return loss_fn(output, label), functional.mse_loss(output, label[0])

    tiny.train(network, step)
