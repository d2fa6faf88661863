"""The plain loop that the trainer's time is compared with trains the same network, bit for bit."""

import pytest
from benchmarks import trainer_overhead


@pytest.mark.parametrize("settings", [[], ["spectral=null"], ["spectral.weight=auto", "training.warmup=0"]])
def test_both_loops_end_with_the_same_weights(tiny, tmp_path, settings):
    ours, theirs = trainer_overhead.measure(tiny(*settings), blocks=1, folder=tmp_path)
    assert ours.shape == theirs.shape == (1,)
    assert (ours > 0).all()
    assert (theirs > 0).all()


def test_another_arithmetic_is_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_overhead, "learning_rate", lambda config, step: 2e-3)
    with pytest.raises(RuntimeError, match="expected both loops to end with the same weights"):
        trainer_overhead.measure(tiny("training.lr=1e-3"), blocks=0, folder=tmp_path)
