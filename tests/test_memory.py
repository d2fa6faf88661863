"""What is refused before it is built, and said in words."""

import numpy as np
import pytest

from specreg import _memory
from specreg._memory import Need, TooLarge, readable, refuse_beyond
from specreg.config import ConfigError
from specreg.data import Checkerboards, DeadLeaves
from specreg.modalities import refuse_too_large
from specreg.models.diffwave import DiffWaveConfig
from specreg.randomness import Stream, rng


def test_the_first_need_beyond_the_memory_is_named(monkeypatch):
    monkeypatch.setattr(_memory, "available", lambda: 10**9)
    refuse_beyond([Need("a", "x", 10**9)])
    with pytest.raises(TooLarge, match=r"b: expected .* y fits into the 1 GB .* at least 1.5 GB"):
        refuse_beyond([Need("a", "x", 10**9), Need("b", "y", 15 * 10**8), Need("c", "z", 10**15)])
    monkeypatch.setattr(_memory, "available", lambda: None)  # where nothing tells, nothing is refused
    refuse_beyond([Need("a", "x", 10**30)])


@pytest.mark.parametrize(("count", "words"), [
    (0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (25_300_000_000, "25.3 GB"), (10**24, "1,000,000 EB"),
    (10**802, "10^802 bytes"),
])  # fmt: skip
def test_numbers_of_bytes_are_readable(count, words):
    assert readable(count) == words


def test_this_machine_has_memory():
    assert _memory.available() > 10**8


@pytest.mark.parametrize("override", [
    "data.resolution=1048576", "training.batch_size=1000000000000", "data.count=1000000000000000000",
    "sampling.count=1000000000000", "model.width=1000000", "data.squares=[2] training.workers=1024",
])  # fmt: skip
def test_runs_that_cannot_be_allocated_are_refused(tiny, override, monkeypatch):
    monkeypatch.setattr(_memory, "available", lambda: 10**10)
    refuse_too_large(tiny(), processes=1)
    with pytest.raises(ConfigError, match="expected values for which"):
        refuse_too_large(tiny(*override.split(" ")), processes=1)


def test_drawing_does_not_need_what_training_does(tiny, monkeypatch):
    monkeypatch.setattr(_memory, "available", lambda: 10**10)
    refuse_too_large(tiny("training.batch_size=1000000000000"))
    refuse_too_large(tiny("training.batch_size=40000000"), processes=10_000)
    with pytest.raises(ConfigError, match=r"sampling.count: .* all samples"):
        refuse_too_large(tiny("sampling.count=100000000"))


def test_every_seed_has_numbers_of_its_own():
    """numpy makes floats of a list with a number from 2^63 up: neighbours had the same numbers."""
    seeds = [0, 1, 2**53, 2**53 + 1, 2**63 - 2, 2**63 - 1]
    drawn = {tuple(rng(seed, Stream.NOISE).integers(2**62, size=2).tolist()) for seed in seeds}
    assert len(drawn) == len(seeds)
    expected = np.random.Generator(np.random.Philox(key=[5, 1], counter=[0, 0, 3, 2])).random()
    assert rng(5, Stream.NOISE, 2, 3).random() == expected
    for bad in (-1, 2**63, 2**64 - 1):
        for use in (rng, lambda seed, _: DeadLeaves(1, seed=seed), lambda seed, _: Checkerboards(1, seed=seed)):
            with pytest.raises(ValueError, match=r"a seed must be a whole number from 0 to 2\^63 - 1; got"):
                use(bad, Stream.NOISE)


@pytest.mark.parametrize("options", [
    {"residual_layers": 10**9}, {"hop_samples": 10**18 + 3}, {"dilation_cycle_length": 40}, {"n_mels": True},
    {"noise_schedule": [0.5] * 100_001}, {"upsample_factors": (0.5, 512)}, {"upsample_factors": 16},
])  # fmt: skip
def test_vocoders_beyond_any_known_are_refused_at_once(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        DiffWaveConfig(**options)


@pytest.mark.parametrize("radii", [(1e-9, 5), (1, 1e300), (0.001, 16)])
def test_discs_that_would_never_end_are_refused(radii):
    with pytest.raises(ValueError, match="radii must be two numbers"):
        DeadLeaves(1, radii=radii)
