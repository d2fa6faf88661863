"""The benchmark command: that it runs, and that what it compares with ours says the same."""

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import auto_weight
from benchmarks.contenders import CONTENDERS, FLOORS, Case
from benchmarks.losses import prepare

ROOT = Path(__file__).parents[1]
IMAGES = Case("images", (2, 3, 16, 16))


@pytest.mark.parametrize("ours", ["amplitude", "amplitude_phase"])
def test_the_plain_forms_have_the_values_of_our_losses(ours):
    g = torch.Generator().manual_seed(0)
    x0_hat, x0 = torch.randn(2, *IMAGES.shape, generator=g)
    found, plain = (CONTENDERS[name](IMAGES)(x0_hat, x0) for name in (ours, f"{ours}, plain"))
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=0)


def test_haar_of_a_peer_has_the_value_of_ours():
    pytest.importorskip("ptwt")
    x0_hat, x0 = torch.randn(2, *IMAGES.shape, generator=torch.Generator().manual_seed(0))
    found, theirs = (CONTENDERS[name](IMAGES)(x0_hat, x0) for name in ("haar", "haar, ptwt"))
    torch.testing.assert_close(found, theirs, rtol=1e-5, atol=0)


@pytest.mark.parametrize("compiled", [False, True])
def test_half_precision_keeps_what_takes_float32_and_floors_are_not_compiled(compiled, monkeypatch):
    given = []
    monkeypatch.setattr(torch, "compile", lambda step: given.append(step) or step)
    some = {"amplitude", "haar", "MSE", "amplitude, plain", *FLOORS}
    steps = prepare(IMAGES, device="cpu", dtype=torch.bfloat16, compiled=compiled, only=some)
    assert set(steps.run) == some
    assert len(given) == (len(some) - len(FLOORS) if compiled else 0)


def test_the_command_prints_a_table_and_writes_its_numbers(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--cases", "images 32", "--seconds", "0.01", "--device", "cpu"]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "b.json")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "Goals" in done.stdout
    found = json.loads((tmp_path / "b.json").read_text())
    (case,) = found["cases"]
    missing = {
        name for name, why in case["failed"].items() if not why.startswith(("ModuleNotFoundError", "ValueError"))
    }
    assert not missing
    row = case["rows"]["amplitude"]
    assert row["ms"] > 0
    assert 0 < row["bandwidth"] < 1
    assert row["ratios"]["FFT floor"][0] > 0
    assert len(found["goals"]) >= 6


def test_examples_take_turns_with_and_without_the_term():
    command = [sys.executable, "-m", "benchmarks.trainers", "--one", str(ROOT / "examples" / "minimal.py")]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(shown.stdout)
    assert len(found["with"]) > 5
    assert abs(len(found["with"]) - len(found["without"])) <= 1
    assert min(found["with"] + found["without"]) > 0


def norms(calls=6, batch=3, seed=0):
    return auto_weight.Measured(*np.exp(np.random.default_rng(seed).normal(size=(2, calls, batch))))


def test_the_estimator_called_geometric_is_autoweight():
    m = norms(calls=200)
    base, spectral = (np.sqrt((x**2).sum(1)) for x in m)
    ages = 0.98 ** np.arange(200)[::-1]
    expected = (ages * np.log(base / spectral)).sum() / ages.sum()
    assert auto_weight.geometric(m)[-1] == pytest.approx(expected, abs=1e-5)


def test_estimators_of_constant_norms_agree_and_means_differ_by_what_they_average():
    m = auto_weight.Measured(np.full((5, 1), 3.0), np.full((5, 1), 2.0))
    for estimate in auto_weight.ESTIMATORS.values():
        np.testing.assert_allclose(np.exp(estimate(m)), 1.5, rtol=1e-6)
    two = auto_weight.Measured(np.array([[3.0], [4.0]]), np.ones((2, 1)))
    old, new = 0.98 / 1.98, 1 / 1.98
    assert np.exp(auto_weight.means(two))[-1] == pytest.approx(old * 3 + new * 4)
    assert np.exp(auto_weight.squares(two))[-1] == pytest.approx(math.sqrt(old * 9 + new * 16))
    assert np.exp(auto_weight.running_median(two))[-1] == pytest.approx(math.sqrt(12))


def test_an_outlier_moves_a_clipped_mean_no_further_than_the_limit():
    logs = np.array([0.0, 1.0, 0.0, 100.0])
    found = auto_weight.clipped(auto_weight.Measured(np.exp(logs)[:, None], np.ones((4, 1))), times=2.0)
    before = found[2]
    mass = 1 - 0.98**3
    deviation = (0.98 * 0.02 * 1.0 + 0.02 * abs(0.0 - found[1])) / mass
    assert found[3] - before == pytest.approx(0.02 * 2.0 * deviation / (1 - 0.98**4))


def test_a_tenfold_change_is_followed_as_the_memory_says():
    m = auto_weight.Measured(np.ones((1000, 1)), np.ones((1000, 1)))
    expected = math.ceil(math.log(0.1 / (1 - 0.98**500)) / math.log(0.98))
    assert auto_weight.follows(auto_weight.geometric, m) == pytest.approx(expected, abs=2)


def test_what_autoweights_benchmark_measures_are_gradients_by_sample_at_the_output():
    data = auto_weight.images(8)
    one, two = (auto_weight.measure(auto_weight.CASES[name], data, batch=2, calls=3, seed=0) for name in ("1", "1/σ²"))
    u = torch.Generator().manual_seed(0)
    torch.randint(8, (6,), generator=u)
    sigma = [auto_weight.CASES["1"].density(float(x)) for x in torch.rand(6, generator=u, dtype=torch.float64)]
    np.testing.assert_allclose((two.base / one.base).ravel(), np.array(sigma) ** -2, rtol=1e-9)
    np.testing.assert_array_equal(two.spectral, one.spectral)


def test_autoweights_benchmark_prints_and_writes_a_row_for_each_estimator(tmp_path):
    command = [sys.executable, "-m", "benchmarks.auto_weight", "--calls", "120", "--seeds", "1", "--batch", "2"]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "a.json")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert [(row["case"], row["estimator"]) for row in rows] == list(
        itertools.product(auto_weight.CASES, auto_weight.ESTIMATORS)
    )
    assert len(done.stdout.splitlines()) == 1 + len(rows)
    assert all(row["spread"] >= 1 and row["drift"] >= 1 and row["level"] > 0 for row in rows)
