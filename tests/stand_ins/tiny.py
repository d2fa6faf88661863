"""What the stand-ins of trainers share: latents, a network, and a loop that prints the base loss."""

import torch
from torch import nn
from torch.nn import functional

SIZE = 16


def latents(count=8):
    """Gratings of random direction and frequency, [count, 4, SIZE, SIZE]."""
    y, x = torch.meshgrid(torch.arange(float(SIZE)), torch.arange(float(SIZE)), indexing="ij")
    k = torch.rand(count, 2, 4, 1, 1) * 2
    return torch.cos(k[:, 0] * x + k[:, 1] * y)


class Network(nn.Module):
    def __init__(self, channels=4):
        super().__init__()
        self.inner, self.outer = nn.Conv2d(channels + 1, 32, 5, padding=2), nn.Conv2d(32, channels, 5, padding=2)

    def forward(self, x, t):
        """Predict from x_t [B, C, H, W] and times [B] in [0, 1]."""
        return self.outer(functional.silu(self.inner(torch.cat([x, spread(t, x).expand_as(x[:, :1])], 1))))


def spread(t, like):
    return t.reshape(-1, *[1] * (like.ndim - 1)).to(like)


def train(network, step, count=60):
    """Train with `step() -> (loss, base loss)`."""
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for n in range(count):
        loss, base = step()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if n % 19 == 0:
            print(f"step {n + 1}: base loss {base.item():.3f}, whole loss {loss.item():.3f}")
