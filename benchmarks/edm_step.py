"""What the spectral term is of a training step of the paper's 64×64 EDM network (62 M parameters).

    python -m benchmarks.edm_step [--batch 16] [--rounds 2] [--dtype bfloat16 --compile --channels-last] [--json FILE]

The step is forward, backward and AdamW on the network; the term is value and gradient of the loss on the same batch,
timed alone, because on a CPU a step takes so long that its own noise would hide it. On a GPU the two are also timed
together, in turns, which is the honest figure where kernels overlap.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import specreg
from benchmarks.measure import interleaved_seconds, median_ratio
from specreg import objectives
from specreg.models.network_config import NetworkConfig

LOSSES = ("amplitude", "amplitude_phase", "haar", "bior1.3")


def network() -> NetworkConfig:
    """DDPM++ as the public AFHQv2 and FFHQ checkpoints have it."""
    options = {"img_resolution": 64, "model_channels": 128, "channel_mult": [1, 2, 2, 2], "num_blocks": 4,
               "attn_resolutions": [16], "augment_dim": 9, "dropout": 0.05}  # fmt: skip
    return NetworkConfig("songunet", "edm", options)


def main() -> None:
    """Measure, print, and write the numbers where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.edm_step", description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2, help="whole steps timed")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--compile", action="store_true", help="the network under torch.compile")
    parser.add_argument("--channels-last", action="store_true", help="the network's weights in channels_last")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch on the CPU")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    model = network().build(seed=0).to(options.device)
    if options.channels_last:
        model = model.to(memory_format=torch.channels_last)
    model.dtype = getattr(torch, options.dtype)
    parameters = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    run = torch.compile(model) if options.compile else model
    x0, noise = torch.randn(2, options.batch, 3, 64, 64, device=options.device).clamp(-1, 1).unbind()
    sigma = torch.linspace(0.1, 2.0, options.batch, device=options.device)

    def step(regularizer: specreg.SpectralRegularizer | None) -> None:
        optimizer.zero_grad()
        objectives.denoiser(regularizer=regularizer)(run, x0, sigma, noise).loss.backward()
        optimizer.step()

    def term(regularizer: specreg.SpectralRegularizer, x0_hat: torch.Tensor) -> None:
        x0_hat.grad = None
        regularizer(x0_hat, x0, specreg.NoiseLevel.edm(sigma)).loss.backward()

    step(None)
    if options.device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(options.rounds):
        step(None)
    if options.device == "cuda":
        torch.cuda.synchronize()
    whole = (time.perf_counter() - began) / options.rounds
    if options.device == "cuda":
        memory = torch.cuda.max_memory_allocated()
    else:
        memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # of the whole process

    x0_hat = (x0 + 0.1 * noise).requires_grad_()
    terms = {name: specreg.SpectralRegularizer(name, weight=1.0) for name in LOSSES}
    alone = interleaved_seconds(
        {name: lambda r=r: term(r, x0_hat) for name, r in terms.items()}, seconds=3, device=options.device
    )
    together = {}
    if options.device == "cuda":
        steps = {"none": lambda: step(None)} | {name: lambda r=r: step(r) for name, r in terms.items()}
        seconds = interleaved_seconds(steps, seconds=20, device=options.device)
        together = {name: median_ratio(seconds[name], seconds["none"]) for name in terms}

    where = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {options.threads} threads"
    title = (f"EDM 64×64, {parameters / 1e6:.1f} M parameters, batch {options.batch}, {options.dtype}, {where}, "
             f"torch {torch.__version__}: {1e3 * whole:.0f} ms and at most {memory / 1e9:.1f} GB a step")  # fmt: skip
    table = Table("loss", "term alone, ms", "of the step", "step with / without", title=title, title_justify="left",
                  box=None)  # fmt: skip
    rows = {}
    for name in terms:
        ms = 1e3 * float(np.median(alone[name]))
        rows[name] = {"ms": ms, "share": ms / 1e3 / whole, "with_over_without": together.get(name)}
        both = together.get(name)
        table.add_row(name, f"{ms:.3f}", f"{100 * ms / 1e3 / whole:.3f}%",
                      f"{both[0]:.4f} ({both[1]:.4f} … {both[2]:.4f})" if both else "")  # fmt: skip
    Console(width=None if Console().is_terminal else 150).print(table)
    if options.json:
        options.json.write_text(
            json.dumps({"title": title, "step_seconds": whole, "memory_bytes": memory, "losses": rows}, indent=1)
        )


if __name__ == "__main__":
    main()
