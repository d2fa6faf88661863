"""The benchmark command: that it runs, and that what it compares with ours says the same."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
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
