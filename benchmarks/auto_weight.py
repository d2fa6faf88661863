"""How steady AutoWeight's λ is under base weights with heavy tails, and what other estimators would do.

    python -m benchmarks.auto_weight --json docs/measured/auto-weight.json

The problem is fixed and small: dead leaves of 16×16 with noise, the best linear denoiser of Gaussian fields of their
spectrum, whose output is o, and `amplitude` under the default noise weight. Nothing is trained, so the right λ is one
number and every movement of λ is noise of the estimate. Each call draws images, σ and noise. All estimators see the
same calls. But for the one that says so, they have one memory: samples are 50 calls old in the mean.

Columns, medians over seeds:

    spread    95th over 5th percentile of λ over the calls after warm-up (the first 100)
    early     the same of the calls 2 to 20, over calls and seeds together
    drift     mean λ of the last quarter over that of the first after warm-up, as a factor of at least 1
    level     λ over that of `geometric`: what a ratio of 2 would come to mean
    follows   calls until λ has 90%, in decades, of a tenfold change of the base loss; the slower of rise and fall
              (first three seeds)
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from specreg import AutoWeight, NoiseLevel, SpectralRegularizer
from specreg.data import DeadLeaves
from specreg.diffusion.noise_density import LogNormal, LogUniform, NoiseDensity

Norms = NDArray[np.float64]
SIGMA_DATA = 0.5
SMOOTHING = 0.98
MEMORY = 50
WARM_UP = 100


class Case(NamedTuple):
    """A base loss: the weight of a sample's mean squared error of x0, and where σ is drawn."""

    weight: Callable[[Tensor], Tensor]
    density: NoiseDensity


CASES = {
    "1": Case(torch.ones_like, LogUniform(0.002, 80.0)),
    "min-SNR": Case(lambda sigma: (SIGMA_DATA / sigma).square().clamp_max(5.0), LogUniform(0.002, 80.0)),
    "EDM": Case(lambda sigma: (sigma.square() + SIGMA_DATA**2) / (sigma * SIGMA_DATA).square(), LogNormal(-1.2, 1.2)),
    "1/σ²": Case(lambda sigma: sigma**-2, LogUniform(0.002, 80.0)),
}


class Measured(NamedTuple):
    """Norms of the gradients at the output by call and sample, `[calls, B]` each."""

    base: Norms
    spectral: Norms


def images(count: int = 256) -> Tensor:
    """Return dead leaves `[count, 1, 16, 16]` whose standard deviation is that of EDM's data."""
    leaves = DeadLeaves(count, resolution=16, channels=1, seed=0)
    x = torch.stack([leaves.item(i) for i in range(count)]).double()
    x = x - x.mean()
    return x / x.std() * SIGMA_DATA


def measure(case: Case, data: Tensor, *, batch: int, calls: int, seed: int) -> Measured:
    """Return the gradient norms of some calls of a fixed denoiser."""
    g = torch.Generator().manual_seed(seed)
    power = torch.fft.fft2(data, norm="ortho").abs().square().mean(0)
    x0 = data[torch.randint(len(data), (calls * batch,), generator=g)]
    u = torch.rand(calls * batch, generator=g, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
    sigma = torch.tensor([case.density(float(each)) for each in u], dtype=torch.float64)
    noise = torch.randn(x0.shape, generator=g, dtype=torch.float64)
    level = NoiseLevel.edm(sigma)
    noisy = torch.fft.fft2(level.diffuse(x0, noise), norm="ortho")
    gain = power / (power + sigma.square()[:, None, None, None])
    output = torch.fft.ifft2(gain * noisy, norm="ortho").real.requires_grad_()

    base = case.weight(sigma) * (output - x0).square().flatten(1).mean(1)
    spectral = SpectralRegularizer("amplitude", weight=1.0)(output, x0, level)
    norms = []
    for loss in (base.sum(), (spectral.weight * spectral.per_sample).sum()):
        (gradient,) = torch.autograd.grad(loss, output, retain_graph=True)
        norms.append((gradient.flatten(1).norm(dim=1) / batch).reshape(calls, batch).numpy())
    return Measured(*norms)


# --- estimators: norms [calls, B] -> log λ/ratio after each call -------------------------------------------------


def whole(norms: Norms) -> Norms:
    """Return the norms over the batch, `[calls]`."""
    return np.sqrt(np.square(norms).sum(1))


def ema(values: Norms, smoothing: float = SMOOTHING) -> Norms:
    """Return the exponential mean of the calls so far, `[calls]`, without bias at the start."""
    found, total, mass = np.empty_like(values), 0.0, 0.0
    for n, value in enumerate(values):
        total, mass = smoothing * total + (1 - smoothing) * value, smoothing * mass + (1 - smoothing)
        found[n] = total / mass
    return found


def log_ratios(m: Measured) -> Norms:
    """Return the log of the ratio of the batch's norms, `[calls]`."""
    return np.log(whole(m.base)) - np.log(whole(m.spectral))


def geometric(m: Measured) -> Norms:
    """What AutoWeight did when this was written: it runs AutoWeight itself."""
    auto = AutoWeight(1.0, smoothing=SMOOTHING)
    found = [auto.update(b, s) for b, s in zip(*(torch.from_numpy(whole(x)) for x in m), strict=True)]
    return np.log(torch.stack(found).double().numpy())


def slower(m: Measured) -> Norms:
    """The same with a memory of 200 calls."""
    return ema(log_ratios(m), 0.995)


def clipped(m: Measured, times: float = 1.5) -> Norms:
    """A call's log-ratio is held within `times` the running mean deviation of the running mean."""
    found, mean, deviation, mass = [], 0.0, 0.0, 0.0
    for value in log_ratios(m):
        if mass > 0:
            off = value - mean / mass
            limit = times * deviation / mass if deviation > 0 else math.inf
            deviation = SMOOTHING * deviation + (1 - SMOOTHING) * abs(off)
            value = mean / mass + min(max(off, -limit), limit)
        mean, mass = SMOOTHING * mean + (1 - SMOOTHING) * value, SMOOTHING * mass + (1 - SMOOTHING)
        found.append(mean / mass)
    return np.array(found)


def running_median(m: Measured) -> Norms:
    """The median of the last 100 calls, whose mean age is that of the exponential mean."""
    values = log_ratios(m)
    return np.array([np.median(values[max(0, n + 1 - 2 * MEMORY) : n + 1]) for n in range(len(values))])


def squares(m: Measured) -> Norms:
    """The ratio of two exponential means of squared norms."""
    return 0.5 * (np.log(ema(whole(m.base) ** 2)) - np.log(ema(whole(m.spectral) ** 2)))


def means(m: Measured) -> Norms:
    """The ratio of two exponential means of norms."""
    return np.log(ema(whole(m.base))) - np.log(ema(whole(m.spectral)))


def by_sample(reduce: Callable[..., Norms]) -> Callable[[Measured], Norms]:
    """The median or the mean over the batch of each sample's log-ratio, then the exponential mean."""
    return lambda m: ema(reduce(np.log(m.base) - np.log(m.spectral), axis=1))


ESTIMATORS: dict[str, Callable[[Measured], Norms]] = {
    "geometric": geometric,
    "geometric, 200 calls": slower,
    "clipped": clipped,
    "median of calls": running_median,
    "mean norms": means,
    "mean squares": squares,
    "median of samples": by_sample(np.median),
    "mean of samples": by_sample(np.mean),
}


class Row(NamedTuple):
    """What one estimator does in one case; the module says what the columns are."""

    case: str
    batch: int
    estimator: str
    spread: float
    early: float
    drift: float
    level: float
    follows: float


def percentiles(log_lambda: Norms) -> float:
    """Return the 95th over the 5th percentile of λ."""
    low, high = np.percentile(log_lambda, (5, 95))
    return math.exp(high - low)


def follows(estimate: Callable[[Measured], Norms], m: Measured) -> float:
    """Return the calls until 90% of a tenfold change at half of the calls is in λ; the noise of λ is taken away."""
    half = len(m.base) // 2
    before, slowest = estimate(m), 0.0
    for sign in (1, -1):
        changed = m.base.copy()
        changed[half:] *= 10.0**sign
        moved = sign * (estimate(Measured(changed, m.spectral)) - before)
        there = np.flatnonzero(moved[half:] >= 0.9 * math.log(10.0))
        slowest = max(slowest, float(there[0] + 1) if len(there) else math.inf)
    return slowest


def rows(name: str, *, batch: int, calls: int, seeds: int, data: Tensor) -> list[Row]:
    """Return a row for each estimator."""
    drawn = [measure(CASES[name], data, batch=batch, calls=calls, seed=seed) for seed in range(seeds)]
    reference = [geometric(m) for m in drawn]
    found = []
    for label, estimate in ESTIMATORS.items():
        logs = [estimate(m) for m in drawn]
        late = [x[WARM_UP:] for x in logs]
        quarter = max(1, len(late[0]) // 4)
        found.append(
            Row(
                name,
                batch,
                label,
                statistics.median(percentiles(x) for x in late),
                percentiles(np.concatenate([x[1:20] for x in logs])),
                statistics.median(math.exp(abs(x[-quarter:].mean() - x[:quarter].mean())) for x in late),
                statistics.median(
                    math.exp(x.mean() - r[WARM_UP:].mean()) for x, r in zip(late, reference, strict=True)
                ),
                statistics.median(follows(estimate, m) for m in drawn[:3]),
            )
        )
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000, help="more than the warm-up's 100")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--batch", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.calls <= WARM_UP or given.seeds < 1 or min(given.batch) < 1:
        parser.error(f"--calls must be more than {WARM_UP}, --seeds and --batch at least 1")
    data, found = images(), []
    print(f"{'base weight':12} {'batch':>5} {'estimator':22} spread  early  drift  level  follows")
    for name in CASES:
        for batch in given.batch:
            for row in rows(name, batch=batch, calls=given.calls, seeds=given.seeds, data=data):
                found.append(row._asdict())
                print(f"{row.case:12} {row.batch:5} {row.estimator:22} {row.spread:6.2f} {row.early:6.2f} "
                      f"{row.drift:6.2f} {row.level:6.2f} {row.follows:8.0f}", flush=True)  # fmt: skip
    if given.json:
        given.json.write_text(json.dumps({"rows": found, "torch": torch.__version__}, indent=1) + "\n")


if __name__ == "__main__":
    main()
