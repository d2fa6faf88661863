"""What each loss sees: eight controlled damages at three strengths, beside white noise of the same squared error.

    python -m benchmarks.losses_seen > docs/measured/losses-seen.json

A number is the loss of damaged samples over its loss of samples with white noise whose squared error is the same, mean
over 64 dead leaves of 64×64. 1: the loss charges the damage as it charges noise. 0: it does not see it. Above 1: it
sees what a squared error hardly does. Then what the loss costs and how large its gradient is. Losses on the sphere get
the same samples, two side by side, as maps of 64 Gaussian latitudes by 128 longitudes.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from specreg import losses
from specreg.data import DeadLeaves
from specreg.transforms.radial import frequency_grid

LOSSES = (
    "amplitude", "amplitude_phase(frequency)", "amplitude_phase(projection)", "haar", "bior1.3", "amplitude+haar",
    "fft(hann,detrend=plane):amplitude", "dct:amplitude", "dct:l1", "patches(8):amplitude", "swt(haar):l1",
    "fft:log_power", "patches(8):log_power", "dct:log_power", "fft:binned_power", "fft:amse", "patches(8):amse",
    "fft:focal", "sht(legendre-gauss):amplitude", "sht(legendre-gauss):log_power", "sht(legendre-gauss):amse",
)  # fmt: skip
NOISE = 0.1
"""Standard deviation of the noise at which gradients are compared, where images are in [-1, 1]."""


def build(name: str) -> losses.SpectralLoss:
    """Return a loss by its name here, in which the paper's may have parentheses."""
    return losses.build(f"fft:{name}" if name.startswith("amplitude_phase(") else name)


def given(x: Tensor, name: str) -> Tensor:
    """Return the samples as a loss takes them."""
    return torch.cat(x.chunk(2), -1) if name.startswith("sht") else x


def shift(x: Tensor, pixels: float) -> Tensor:
    """Move circularly."""
    return x.roll((int(pixels), int(pixels)), (2, 3))


def _filtered(x: Tensor, response: Callable[[Tensor], Tensor]) -> Tensor:
    frequency = frequency_grid(x.shape[2:])
    return torch.fft.irfft2(torch.fft.rfft2(x) * response(frequency), s=x.shape[2:]).to(x.dtype)


def blur(x: Tensor, sigma: float) -> Tensor:
    """Blur with a Gaussian of `sigma` pixels."""
    return _filtered(x, lambda f: torch.exp(-2 * (math.pi * sigma * f) ** 2))


def missing_band(x: Tensor, low: float) -> Tensor:
    """Remove all above `low` cycles per pixel."""
    return _filtered(x, lambda f: (f <= low).double())


def phase_scramble(x: Tensor, angle: float) -> Tensor:
    """Turn every phase by a random angle of that standard deviation in radians."""
    generator = torch.Generator().manual_seed(1)
    turn = torch.fft.rfft2(torch.randn(x.shape, generator=generator, dtype=x.dtype))
    return torch.fft.irfft2(torch.fft.rfft2(x) * torch.exp(1j * angle * turn.angle() * math.sqrt(3) / math.pi),
                            s=x.shape[2:])  # fmt: skip


def grid_artefact(x: Tensor, size: float) -> Tensor:
    """Add a checkerboard of single pixels of that amplitude, as an upsampling layer may."""
    rows, columns = (torch.arange(n) for n in x.shape[2:])
    return x + size * (1 - 2 * ((rows[:, None] + columns[None]) % 2)).to(x.dtype)


def faint(x: Tensor, gain: float) -> Tensor:
    """Lower the contrast."""
    mean = x.mean((2, 3), keepdim=True)
    return mean + gain * (x - mean)


def brightness(x: Tensor, size: float) -> Tensor:
    """Add a constant."""
    return x + size


def noise(x: Tensor, std: float, seed: int = 2) -> Tensor:
    """Add white noise."""
    return x + std * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)


DAMAGES: dict[str, tuple[Callable[[Tensor, float], Tensor], tuple[float, float, float], str]] = {
    "shift": (shift, (1, 2, 4), "pixels"),
    "blur": (blur, (0.5, 1.0, 2.0), "σ, pixels"),
    "missing band": (missing_band, (0.4, 0.25, 0.125), "cycles per pixel and above"),
    "phase scramble": (phase_scramble, (0.25, 0.5, 1.0), "radians"),
    "grid artefact": (grid_artefact, (0.02, 0.05, 0.1), "amplitude"),
    "fainter": (faint, (0.95, 0.9, 0.8), "contrast"),
    "brightness": (brightness, (0.02, 0.05, 0.1), "added"),
    "noise": (lambda x, std: noise(x, std, seed=3), (0.05, 0.1, 0.2), "standard deviation"),
}


def seen(x: Tensor, loss: losses.SpectralLoss) -> dict[str, list[float]]:
    """Return what a loss charges for each damage, in that of white noise of the same squared error."""
    found = {}
    for name, (damage, strengths, _) in DAMAGES.items():
        row = []
        for strength in strengths:
            damaged = damage(x, strength)
            error = float((damaged - x).square().mean().sqrt())
            row.append(float(loss(damaged, x).mean() / loss(noise(x, error), x).mean()))
        found[name] = row
    return found


def gradient_scale(x: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Return the norm of the gradient where the samples have noise, over that of the mean squared error."""
    noisy = noise(x, NOISE)
    norms = []
    for each in (loss, lambda a, b: (a - b).square().flatten(1).mean(1)):
        at = noisy.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(each(at, x).mean(), at)
        norms.append(float(gradient.norm()))
    return norms[0] / norms[1]


def costs(x: Tensor, rounds: int = 15) -> dict[str, float]:
    """Return seconds of value and gradient over those of `amplitude`: medians of ratios, taking turns."""
    built = {name: build(name) for name in LOSSES}
    taken: dict[str, list[float]] = {name: [] for name in LOSSES}
    for _ in range(rounds + 1):
        for name, loss in built.items():
            clean = given(x, name)
            at = noise(clean, NOISE).requires_grad_()
            start = time.process_time()
            loss(at, clean).mean().backward()
            taken[name].append(time.process_time() - start)
    first = taken["amplitude"][1:]
    return {
        name: statistics.median(a / b for a, b in zip(times[1:], first, strict=True)) for name, times in taken.items()
    }


def main() -> None:
    """Print the JSON of the table."""
    leaves = DeadLeaves(64, resolution=64, channels=1, seed=0)
    x = torch.stack([leaves.item(i) for i in range(64)]).double()
    batch = x.float().expand(-1, 3, -1, -1).contiguous()[:16]
    cost = costs(batch)
    rows = [
        {
            "loss": name,
            "seen": seen(given(x, name), build(name)),
            "cost": cost[name],
            "gradient": gradient_scale(given(x, name), build(name)),
        }
        for name in LOSSES
    ]
    damages = {name: {"strengths": strengths, "unit": unit} for name, (_, strengths, unit) in DAMAGES.items()}
    json.dump({"damages": damages, "rows": rows, "torch": torch.__version__}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
