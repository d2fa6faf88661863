"""Calibration in words and intervals against Wiener filters of Gaussian fields, which are known in closed form."""

import pytest
import torch

from specreg import objectives
from specreg.denoising import denoising_powers
from specreg.diagnosis import diagnose, record, sentences
from specreg.diffusion import noise_density
from specreg.transforms import radial

SIDE = 16
BANDS = 4
POWER = radial.frequency_grid((SIDE, SIDE)).clamp_min(1 / SIDE) ** -2 / 64
OBJECTIVE = objectives.denoiser(noise_density.build("edm"))
HIGH = radial.band_index((SIDE, SIDE), BANDS) >= 2


def field(count=256, seed=0):
    white = torch.fft.rfft2(torch.randn(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)))
    return torch.fft.irfft2(white * POWER.sqrt(), s=(SIDE, SIDE)).float()


def wiener(factor):
    """Return Wiener's filter P/(P + σ²) times `factor(σ)`, a number or a factor for each coefficient."""

    def network(x_t, sigma):
        shrink = factor(sigma[0]) * POWER / (POWER + sigma[0] ** 2)
        return torch.fft.irfft2(torch.fft.rfft2(x_t) * shrink, s=(SIDE, SIDE)).float()

    return network


def described(factor, count=256, levels=6, **options):
    x0 = field(count)
    powers = denoising_powers(OBJECTIVE, wiener(factor), x0, levels=levels, bands=BANDS)
    return diagnose(powers, x0, draws=400, **options)


def test_the_exact_denoiser_is_called_calibrated():
    found = described(lambda sigma: 1.0, count=1024)
    assert found.regions == []
    assert found.within < 0.1
    words = sentences(found)
    assert words[0].startswith(f"Calibrated within {100 * found.within:.1f}% everywhere")
    assert "only sharpen beyond what the data support" in words[0]
    assert float(found.removable_mean.low) < 0.005
    assert "removes no error" in words[1]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_held_back_is_found_with_its_percentage_and_its_place(seed):
    """0.88 × Wiener's filter from half Nyquist up at the quieter levels: 12% is held back there and nowhere else."""

    def factor(sigma):
        return torch.where(HIGH, 0.88, 1.0) if sigma < 0.4 else 1.0

    found = described(factor, count=512, seed=seed)
    quiet = found.map.timesteps < 0.4
    expected = quiet[:, None] & (torch.arange(BANDS) >= 2) & found.judged
    (region,) = found.regions
    assert torch.equal(region.cells, expected)
    assert float(region.withheld.value) == pytest.approx(0.12, abs=0.01)
    assert float(region.withheld.low) < 0.12 < float(region.withheld.high)
    said = sentences(found)[0]
    assert "above 0.25 cycles per pixel" in said
    assert "holds back 12% (" in said
    assert "a spectral term can act here" in said
    (own, *_) = sentences(found, trained_with="haar")
    assert "it was trained with haar, which can be why" in own
    assert "can act here" not in own


def test_the_share_of_the_error_that_a_gain_removes_is_that_of_the_formula():
    """c × Wiener: the error is S·(1 − s) + (1 − c)²·S·s with s = S/(S + σ²); the gain removes the second part."""
    found = described(lambda sigma: 0.7, count=512)
    sigma = found.map.timesteps.double()
    cell = radial.band_mean(POWER[None].double(), (SIDE, SIDE), BANDS)[0]
    shrink = torch.stack([_cellwise(POWER / (POWER + s**2) * POWER) for s in sigma])  # S·s
    expected = 0.09 * shrink / (cell - shrink + 0.09 * shrink)
    inside = found.judged & (shrink / cell > 0.1)
    torch.testing.assert_close(found.removable.value[inside], expected[inside], rtol=0.1, atol=0.01)
    covered = (found.removable.low <= expected) & (expected <= found.removable.high)
    assert float(covered[inside].double().mean()) > 0.8


def _cellwise(values):
    return radial.band_mean(values[None].double(), (SIDE, SIDE), BANDS)[0]


@pytest.mark.parametrize(("quiet", "said"), [(True, "more energy than the data"), (False, "would add more")])
def test_what_is_added_is_named_as_such(quiet, said):
    """1.2 × Wiener's filter has 1.44·s of the data's energy, s = S/(S + σ²): more than all where s is near 1."""

    def factor(sigma):
        return torch.where(HIGH, 1.2, 1.0) if (sigma < 0.2) == quiet else 1.0

    found = described(factor, count=512)
    region = found.regions[0]
    assert float(region.withheld.value) == pytest.approx(-0.2, abs=0.02)
    assert float(region.withheld.low) < float(region.withheld.high) < -0.15
    words = sentences(found)[0]
    assert "the network adds 20% (" in words or "the network adds 19% (" in words
    assert said in words


def test_data_meet_the_noise_where_the_spectrum_says():
    """S(f) = f⁻²/64 = σ² at f = 1/(8σ)."""
    found = described(lambda sigma: 1.0, levels=8)
    sigma = found.map.timesteps.double()
    expected = 1 / (8 * sigma)
    inside = (expected > 2 / SIDE) & (expected < 7 / SIDE)
    assert int(inside.sum()) >= 2
    torch.testing.assert_close(found.crossing.value[inside], expected[inside], rtol=0.08, atol=0)  # coarse bins
    assert bool((found.crossing.low <= found.crossing.value)[inside].all())
    assert bool(found.crossing.value[expected > 0.6].isnan().all())  # above the noise up to Nyquist
    found = described(lambda sigma: 1.0, count=64, levels=24)
    below = 1 / (8 * found.map.timesteps.double()) < 0.05
    assert bool(below.any())
    assert bool(found.crossing.value[below].isnan().all())  # below it from the first bin on


def test_joint_intervals_hold_in_all_cells_at_once_as_often_as_they_say():
    """The exact denoiser of white data: 1 lies in all joint intervals of 95 in 100 sets."""
    hits = 0
    for trial in range(40):
        x0 = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(trial))
        powers = denoising_powers(OBJECTIVE, lambda x, s: x / (1 + s[0] ** 2), x0, levels=3, bands=2, seed=1000 * trial)
        found = diagnose(powers, x0, draws=200)
        hits += bool(((found.joint.low < 1) & (found.joint.high > 1))[found.judged].all())
    assert hits >= 34


def test_batches_change_nothing():
    x0 = field(20)
    whole, parts = (
        denoising_powers(OBJECTIVE, wiener(lambda s: 0.9), x0, levels=3, bands=2, batch_size=size) for size in (20, 7)
    )
    for a, b in zip(whole, parts, strict=True):
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-6, atol=0)


def test_pull_of_batches_is_that_of_the_whole():
    from specreg import SpectralRegularizer

    x0 = field(20)
    objective = objectives.denoiser(regularizer=SpectralRegularizer("haar", weight=0.3))
    whole, parts = (
        denoising_powers(objective, wiener(lambda s: 0.9), x0, levels=3, bands=2, batch_size=size).mean().pull
        for size in (20, 7)
    )
    torch.testing.assert_close(whole, parts, rtol=1e-5, atol=0)


def test_a_network_that_returns_nan_is_refused_with_its_time():
    x0 = field(8)
    powers = denoising_powers(OBJECTIVE, lambda x, s: x * torch.nan, x0, levels=2, bands=2)
    with pytest.raises(ValueError, match="expected a finite x0_hat; the network returns NaN or infinity at time 0"):
        diagnose(powers, x0)


def test_few_samples_are_refused():
    x0 = field(7)
    powers = denoising_powers(OBJECTIVE, lambda x, s: x, x0, levels=2, bands=2)
    with pytest.raises(ValueError, match="expected at least 8 samples for intervals; got 7"):
        diagnose(powers, x0)


def test_a_record_is_json_with_nulls_for_what_is_not_finite():
    import json

    found = record(described(lambda sigma: torch.where(HIGH, 0.0, 1.0), count=32, levels=3))
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text) == found
    none = record(described(lambda sigma: 0.0, count=32, levels=3))
    json.dumps(none, allow_nan=False)
    assert none["gain"]["value"][0][3] is None
    assert none["words"][0].startswith("The network knows nothing of the data")
    assert not found["judged"][0][3]
    assert found["words"][1].startswith("In 6 cells the network predicts nothing")
