"""Is loading the bottleneck? `python -m benchmarks.audio_loading FOLDER [--cache DIR] [--json FILE]`.

Times, in one process and per crop, what a training batch of sound costs to load and what a DiffWave training step costs
to take: decoding and log-mel on the fly, and from the cache once it is filled, each as a ratio to the step. Below 1,
one loading process beside the training one keeps up. Batches take turns with steps, so that a noisy machine is noisy
for all of them; medians over rounds are shown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import specreg
from specreg import objectives
from specreg.data import AudioClip, AudioDataset, MelSettings
from specreg.models.diffwave import DiffWave, DiffWaveConfig


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall time of `work`, the device's queue included."""
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def main() -> None:
    """Measure, print a table, and write the numbers where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="sound files")
    parser.add_argument("--cache", type=Path, help="where the cache goes; a temporary folder by default")
    parser.add_argument("--sample-rate", type=int, default=22_050, help="Hz")
    parser.add_argument("--layers", type=int, default=30, help="of the network; 30 is the public vocoder's")
    parser.add_argument("--channels", type=int, default=64, help="of the network; 64 is the public vocoder's")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    options = parser.parse_args()

    device = torch.device(options.device)
    settings = MelSettings(sample_rate=options.sample_rate)
    config = DiffWaveConfig(
        residual_layers=options.layers, residual_channels=options.channels, sample_rate=options.sample_rate
    )
    network = DiffWave(config).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4)
    loss = specreg.losses.build("amplitude", reduction="sum")
    objective = objectives.diffwave(config.alphas_cumprod.to(device), specreg.SpectralRegularizer(loss, weight=1e-5))

    with tempfile.TemporaryDirectory() as temporary:
        plain = AudioDataset(options.folder, mel=settings)
        cached = AudioDataset(options.folder, mel=settings, cache=options.cache or temporary)
        for i in range(len(cached)):
            cached[i]

        def batch(data: AudioDataset, round: int) -> list[AudioClip]:
            generators = (np.random.default_rng([round, k]) for k in range(options.batch_size))
            return [data.crop(int(g.integers(len(data))), g) for g in generators]

        def step(crops: list[AudioClip]) -> None:
            x0, mel = (torch.stack([crop[k] for crop in crops]).to(device) for k in (0, 1))
            t = torch.randint(len(config.noise_schedule), (len(x0),), device=device)
            optimizer.zero_grad()
            objective(network, x0, t, torch.randn_like(x0), {"mel": mel}).loss.backward()
            optimizer.step()

        step(batch(cached, 0))  # the first is slower: kernels, filters, files
        times: dict[str, list[float]] = {"training step": [], "loading, on the fly": [], "loading, cached": []}
        for round in range(options.rounds):
            times["loading, on the fly"].append(seconds(lambda r=round: batch(plain, r), device))
            times["loading, cached"].append(seconds(lambda r=round: batch(cached, r), device))
            crops = batch(cached, round)
            times["training step"].append(seconds(lambda c=crops: step(c), device))

    per_crop = {name: 1e3 * statistics.median(values) / options.batch_size for name, values in times.items()}
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    title = (
        f"DiffWave of {options.layers} layers, {options.channels} channels, batch {options.batch_size}, {where}; "
        f"{len(plain)} clips at {options.sample_rate} Hz, resampled: {sum(plain.report.resampled.values())}"
    )
    table = Table(title=title)
    for column in ("", "ms a crop", "of a step"):
        table.add_column(column, justify="right")
    ratios = {name: value / per_crop["training step"] for name, value in per_crop.items()}
    for name, value in per_crop.items():
        table.add_row(name, f"{value:.2f}", f"{ratios[name]:.3f}")
    Console().print(table)
    if options.json:
        numbers = {"title": title, "rounds": options.rounds, "ms_per_crop": per_crop, "of_a_step": ratios}
        options.json.write_text(json.dumps(numbers, indent=1))


if __name__ == "__main__":
    main()
