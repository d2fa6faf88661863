"""What the term is of a training step of networks that people train: `python -m benchmarks.network_steps [NAME ...]`.

A step is forward, backward and plain SGD: AdamW's states of the largest would not fit here, and with AdamW a step takes
longer, so that the term's share is smaller. The term is `from_output` under AutoWeight with its gradient at the
network's output, less the base loss alone, timed in turns on an output of the same shape: on a CPU a step takes so long
that its own noise would hide the term. Weights are random.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import specreg
from benchmarks.measure import interleaved_seconds
from specreg.models.diffwave import DiffWave, DiffWaveConfig

LOSSES = ("amplitude", "haar")


class Network(NamedTuple):
    """A network, how it is called with (x_t, t), the shape of a sample, and the samples of a batch."""

    build: Callable[[], Any]
    call: Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]
    shape: tuple[int, ...]
    batch: int


def unconditional(side: int, *channels: int, attention: int) -> torch.nn.Module:
    """Return diffusers' UNet2DModel as the public DDPM checkpoints have it, with attention at one level."""
    from diffusers import UNet2DModel

    levels = len(channels)
    down = ["AttnDownBlock2D" if n == attention else "DownBlock2D" for n in range(levels)]
    up = ["AttnUpBlock2D" if levels - 1 - n == attention else "UpBlock2D" for n in range(levels)]
    return UNet2DModel(
        side, block_out_channels=channels, layers_per_block=2, down_block_types=down, up_block_types=up,
        attention_head_dim=None, norm_eps=1e-6,
    )  # fmt: skip


def text_to_image() -> torch.nn.Module:
    """Return Stable Diffusion 1.5's U-Net, which takes 77 tokens of width 768."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)


def transformer() -> torch.nn.Module:
    """Return DiT-XL/2 for 256×256 images, its output without variances."""
    from diffusers import DiTTransformer2DModel

    return DiTTransformer2DModel(
        num_attention_heads=16, attention_head_dim=72, in_channels=4, num_layers=28, sample_size=32
    )


def sound() -> torch.nn.Module:
    """Return DiffWave's base network without a condition."""
    return DiffWave(DiffWaveConfig(unconditional=True))


NETWORKS = {
    "ddpm-cifar10-32": Network(
        lambda: unconditional(32, 128, 256, 256, 256, attention=1), lambda f, x, t: f(x, t).sample, (3, 32, 32), 16
    ),
    "ddpm-celebahq-256": Network(
        lambda: unconditional(256, 128, 128, 256, 256, 512, 512, attention=4), lambda f, x, t: f(x, t).sample,
        (3, 256, 256), 1,
    ),
    "stable-diffusion-1.5": Network(
        text_to_image, lambda f, x, t: f(x, t, torch.zeros(len(x), 77, 768)).sample, (4, 64, 64), 1
    ),
    "DiT-XL/2-256": Network(
        transformer, lambda f, x, t: f(x, t, torch.zeros(len(x), dtype=torch.long)).sample, (4, 32, 32), 4
    ),
    "DiffWave base": Network(sound, lambda f, x, t: f(x, t // 20), (15_872,), 1),
}  # fmt: skip


class Batch(NamedTuple):
    """Noise x0 and ε at levels spread over Stable Diffusion's schedule: what a step takes costs the same as images."""

    x0: torch.Tensor
    noise: torch.Tensor
    t: torch.Tensor
    alpha_bar: torch.Tensor

    @classmethod
    def of(cls, network: Network) -> Batch:
        """Draw a batch."""
        alphas_cumprod = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).cumprod(0)
        t = torch.linspace(0, 999, network.batch + 2).long()[1:-1]
        x0, noise = torch.randn(2, network.batch, *network.shape)
        return cls(x0, noise, t, alphas_cumprod[t])

    @property
    def x_t(self) -> torch.Tensor:
        """√ᾱ x0 + √(1 − ᾱ) ε."""
        alpha_bar = self.alpha_bar.view(-1, *[1] * (self.x0.ndim - 1))
        return alpha_bar.sqrt() * self.x0 + (1 - alpha_bar).sqrt() * self.noise


def step_seconds(model: torch.nn.Module, network: Network, batch: Batch, rounds: int) -> float:
    """Return the mean seconds of a training step without a term."""
    optimizer = torch.optim.SGD(model.train().parameters(), lr=1e-6)
    began = 0.0
    for n in range(rounds + 1):
        began = time.perf_counter() if n == 1 else began
        output = network.call(model, batch.x_t, batch.t).reshape(batch.noise.shape)
        (output - batch.noise).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return (time.perf_counter() - began) / rounds


def term_seconds(batch: Batch) -> dict[str, float]:
    """Return the median seconds that each loss adds to the base loss and its gradient at the output."""
    output = (batch.noise + 0.1 * torch.randn_like(batch.noise)).requires_grad_()
    level = specreg.NoiseLevel.ddpm(batch.alpha_bar)

    def step(regularizer: specreg.SpectralRegularizer | None) -> None:
        output.grad = None
        loss = (output - batch.noise).square().mean()
        if regularizer is not None:
            given = {"prediction": "epsilon", "x0": batch.x0, "base_loss": loss}
            loss = loss + regularizer.from_output(output, batch.noise, level, **given).loss
        loss.backward()

    terms = {name: specreg.SpectralRegularizer(name, weight="auto") for name in LOSSES}
    steps = {"": lambda: step(None)} | {name: lambda r=r: step(r) for name, r in terms.items()}
    seconds = interleaved_seconds(steps, device="cpu", seconds=5)
    return {name: float(np.median(seconds[name] - seconds[""])) for name in LOSSES}


def measure(network: Network, rounds: int) -> dict[str, Any]:
    """Return parameters, seconds of a step, and what the term of each loss adds, in ms and as a share of the step."""
    torch.manual_seed(0)
    batch, model = Batch.of(network), network.build()
    step = step_seconds(model, network, batch, rounds)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "samples": list(batch.x0.shape),
        "step_seconds": step,
        "losses": {name: {"ms": 1e3 * s, "share": s / step} for name, s in term_seconds(batch).items()},
    }


def main() -> None:
    """Measure, print a table, and write the numbers where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NETWORKS)}; all by default")
    parser.add_argument("--rounds", type=int, default=2, help="whole steps timed, after one that is not")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    threads = f"{options.threads} thread{'s' * (options.threads > 1)}"
    title = f"CPU, {threads}, float32, torch {importlib.metadata.version('torch')}"
    columns = ("network", "parameters", "samples", "step, s", *(f"{name}, ms, of a step" for name in LOSSES))
    table = Table(*columns, title=title, title_justify="left", box=None)
    rows = {}
    for name in options.names or NETWORKS:
        rows[name] = found = measure(NETWORKS[name], options.rounds)
        size, samples = f"{found['parameters'] / 1e6:.0f} M", " × ".join(map(str, found["samples"]))
        terms = [f"{loss['ms']:.1f}, {100 * loss['share']:.3f}%" for loss in found["losses"].values()]
        table.add_row(name, size, samples, f"{found['step_seconds']:.2f}", *terms)
    Console(width=None if Console().is_terminal else 150).print(table)
    if options.json:
        command = f"python -m benchmarks.network_steps --threads {options.threads} --rounds {options.rounds}"
        kept = {"title": title, "created": str(date.today()), "command": command, "networks": rows}
        options.json.write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
