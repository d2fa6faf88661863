"""Counting what a run holds, over a few steps."""

import os

import pytest
from benchmarks.reliability.long import Count, counts, growth

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")


def test_growth_is_the_slope_after_the_first_counts():
    found = [Count(0, 0.0, 1, 1, 9), Count(1000, 500.0, 8, 1, 9)]
    found += [Count(1000 * k, 600.0 + 0.5 * k, 8 + 2 * k, 1, 9) for k in (2, 3, 4)]
    grown = growth(found)
    assert grown == pytest.approx({"megabytes": 0.5, "handles": 2.0, "threads": 0.0, "objects": 0.0}, abs=1e-9)


def test_a_run_with_checkpoints_and_logs_leaves_no_handle_open(tiny, tmp_path):
    found = counts(tiny("training.steps=41", "training.checkpoint_every=2"), tmp_path, every=10)
    assert [count.step for count in found] == [0, 10, 20, 30, 40]
    assert found[-1].handles == found[1].handles
    assert found[-1].threads == found[1].threads


def test_a_handle_that_a_step_leaves_open_is_counted(tiny, tmp_path, monkeypatch):
    left = []
    monkeypatch.setattr(
        "specreg.training.trainer.seed_torch", lambda *given: left.append(os.open(os.devnull, os.O_RDONLY))
    )
    found = counts(tiny("training.steps=41"), tmp_path, every=10)
    assert growth(found, every=10)["handles"] == pytest.approx(10)
    for file in left:
        os.close(file)
