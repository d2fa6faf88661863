"""Stand-in with the signatures of diffusion-pipe at commit 8f83dbf: its get_loss_fn stands in models/base.py."""

import torch
from torch.nn import functional


def pack(x):
    b, c, h, w = x.shape
    return x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


class FluxPipeline:
    def __init__(self, config):
        self.config = config

    def prepare_inputs(self, inputs, timestep_quantile=None):
        x_1 = inputs["latents"].float()
        x_0, t = torch.randn_like(x_1), torch.randn(len(x_1)).sigmoid()
        x_t = x_1.lerp(x_0, t.reshape(-1, 1, 1, 1))
        return (pack(x_t), None, None, t, None, None, None, None), (pack(x_0 - x_1), None)

    def get_loss_fn(self):
        def loss_fn(output, label):
            target, mask = label
            assert mask.numel() == 0
            return functional.mse_loss(output, target)

        return loss_fn
