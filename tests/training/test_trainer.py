import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import DistributedType
from rich.console import Console

from specreg import SpectralRegularizer
from specreg.config import ConfigError, dump
from specreg.training import checkpoint
from specreg.training.ema import EMA
from specreg.training.record import NonFiniteLoss
from specreg.training.schedule import learning_rate
from specreg.training.supported import refuse_sharding
from specreg.training.term import restore_regularizer
from specreg.training.trainer import Trainer

QUIET = Console(quiet=True)


def weights(folder):
    saved = checkpoint.load(checkpoint.latest(folder / "checkpoints"))
    return {f"{kind}.{name}": t for kind in ("model", "ema") for name, t in getattr(saved, kind).items()}


def train(config, folder):
    trainer = Trainer(config, folder, console=QUIET)
    trainer.run()
    return trainer


def log(folder):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k != "seconds_per_step"} for record in records]


def assert_same_course(folder, other):
    """The first step agrees to rounding; Adam then divides rounding errors by gradients that may be as small."""
    for ours, theirs in zip(log(folder), log(other), strict=True):
        rel = 1e-6 if theirs["step"] == 1 else 1e-3
        for name in ("step", "base", "lr", "grad_norm", *(["spectral"] if theirs["spectral"] else [])):
            assert ours[name] == pytest.approx(theirs[name], rel=rel), name


def test_training_learns_and_logs_base_and_term_apart(tiny, tmp_path):
    train(
        tiny("training.steps=60", "training.lr=3e-3", "spectral.weight=0.2", "spectral.noise_weight=constant"), tmp_path
    )
    records = log(tmp_path)
    assert [record["step"] for record in records] == list(range(1, 61))
    for record in records:
        assert record["loss"] == pytest.approx(record["base"] + record["term"], rel=1e-5)
        assert record["term"] == pytest.approx(0.2 * record["spectral"], rel=1e-5)
        assert record["weight"] == pytest.approx(0.2)
    first, last = (sum(r["base"] for r in part) for part in (records[:10], records[-10:]))
    assert last < 0.9 * first


@pytest.mark.parametrize("weight", ["spectral.weight=0.1", "spectral.weight=auto"])
def test_resuming_gives_the_same_bits_as_never_stopping(tiny, tmp_path, weight):
    config = tiny(weight, "spectral.warmup=5", "model.dropout=0.2", "data.flip=true")
    train(config, tmp_path / "whole")

    interrupted = Trainer(config, tmp_path / "parts", console=QUIET)
    step = interrupted.train_step

    def stop_at_4(parts, **options):
        if interrupted.step == 4:
            raise KeyboardInterrupt
        return step(parts, **options)

    interrupted.train_step = stop_at_4
    with pytest.raises(KeyboardInterrupt):
        interrupted.run()
    assert train(config, tmp_path / "parts").step == 6

    a, b = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert log(tmp_path / "whole") == log(tmp_path / "parts")


def test_accumulation_and_workers_do_not_change_the_run(tiny, tmp_path):
    train(tiny(), tmp_path / "plain")
    train(tiny("training.workers=2"), tmp_path / "workers")
    train(tiny("training.accumulate=4"), tmp_path / "accumulate")
    plain = weights(tmp_path / "plain")
    workers = weights(tmp_path / "workers")
    assert all(torch.equal(plain[name], workers[name]) for name in plain)
    assert_same_course(tmp_path / "accumulate", tmp_path / "plain")


@pytest.mark.parametrize("accumulate", [2, 4])
@pytest.mark.parametrize("term", [("weight=auto", "warmup=4"), ("weight=auto", "ratio=5"), ("weight=0.3", "warmup=4")])
def test_parts_of_a_batch_share_one_lambda_measured_over_the_whole(tiny, tmp_path, accumulate, term):
    """λ, losses, gradient ratio and λ's state agree with one part's; batches are so small that parts differ widely."""
    options = [f"spectral.{option}" for option in term] + ["model.dropout=0", "training.lr=1e-4"]
    for name, parts in (("one", 1), ("parts", accumulate)):
        train(tiny(*options, f"training.accumulate={parts}"), tmp_path / name)
    for ours, theirs in zip(log(tmp_path / "parts"), log(tmp_path / "one"), strict=True):
        for name in ("lambda", "base", "spectral", "weight", "term", "loss", "gradient_ratio", "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5), (ours["step"], name)
    ours, theirs = (
        checkpoint.load(checkpoint.latest(tmp_path / name / "checkpoints")).state["regularizer"]
        for name in ("parts", "one")
    )
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert ours["calls"] == theirs["calls"] == (6 if "warmup=4" in term else 0)


def test_lambda_of_a_checkpoint_that_counted_parts_as_calls_goes_on_at_its_step(tiny, tmp_path):
    options = ("spectral.weight=0.2", "spectral.warmup=2", "spectral.cooldown=0.5", "training.accumulate=2")
    config = tiny(*options)
    trainer = Trainer(config, tmp_path, console=QUIET)
    state = {"calls": 8}  # as it was saved at step 4
    restore_regularizer(trainer.objective.regularizer, state, step=4)
    assert int(trainer.objective.regularizer.calls) == 4


def test_dropout_is_the_same_whether_lambda_was_measured_before_or_not(tiny, tmp_path):
    """The pass that measures λ draws dropout as the pass that trains does, and leaves its random numbers to it."""
    options = ("model.dropout=0.5", "training.accumulate=2", "training.lr=3e-3")
    for name, term in (("auto", ("spectral.weight=auto", "spectral.ratio=1e-6")), ("none", ())):
        train(tiny(*options, *term), tmp_path / name)
    ours, theirs = ([record["base"] for record in log(tmp_path / name)] for name in ("auto", "none"))
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_lambda_zero_is_bit_identical_to_no_term(tiny, tmp_path):
    train(tiny("training.steps=50"), tmp_path / "none")
    train(tiny("training.steps=50", "spectral.weight=0"), tmp_path / "zero")
    a, b = weights(tmp_path / "none"), weights(tmp_path / "zero")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert log(tmp_path / "zero")[-1]["spectral"] > 0


def test_two_processes_train_like_one(tiny, tmp_path):
    config = tiny("spectral.weight=0.1")
    train(config, tmp_path / "one")
    (tmp_path / "config.yaml").write_text(dump(config))
    code = (
        "import sys; from pathlib import Path; from specreg.modalities import load; "
        "from specreg.training.trainer import Trainer; "
        "Trainer(load(Path(sys.argv[1])), Path(sys.argv[2])).run()"
    )
    (tmp_path / "run.py").write_text(code)
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0", "--standalone",
         str(tmp_path / "run.py"), str(tmp_path / "config.yaml"), str(tmp_path / "two")],
        check=True, capture_output=True, timeout=180,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert_same_course(tmp_path / "two", tmp_path / "one")


def test_another_runs_folder_is_refused(tiny, tmp_path):
    train(tiny(), tmp_path)
    with pytest.raises(ConfigError, match=r"training\.lr = 0\.0005; got 0\.1"):
        Trainer(tiny("training.lr=0.1"), tmp_path)
    with pytest.raises(ConfigError, match=r"at step 6, beyond training\.steps = 4"):
        Trainer(tiny("training.decay=constant", "training.steps=4"), train_constant(tiny, tmp_path / "constant"))
    Trainer(tiny("training.log_every=5", "sampling.count=9", "title=other"), tmp_path)


def train_constant(tiny, folder):
    train(tiny("training.decay=constant"), folder)
    return folder


def test_the_config_is_checked_before_the_first_checkpoint_too(tiny, tmp_path):
    Trainer(tiny("training.lr=0.1"), tmp_path, console=QUIET).close()
    with pytest.raises(ConfigError, match=r"config\.yaml: .* holds a run with training\.lr = 0\.1; got 0\.0005"):
        Trainer(tiny(), tmp_path, console=QUIET)


def test_a_term_that_does_not_fit_the_data_fails_before_the_first_step(tiny, tmp_path):
    config = tiny("spectral.name=haar", "spectral.options={levels: 2, band_weights: [1, 2, 3]}")
    with pytest.raises(ValueError, match="one number for each of 2 levels; got 3"):
        Trainer(config, tmp_path)
    assert not (tmp_path / "config.yaml").exists()


def test_a_finished_constant_run_can_be_prolonged(tiny, tmp_path):
    train(tiny("training.decay=constant"), tmp_path / "a")
    train(tiny("training.decay=constant", "training.steps=9"), tmp_path / "a")
    train(tiny("training.decay=constant", "training.steps=9"), tmp_path / "b")
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("bad", ["base", "spectral"])
def test_a_non_finite_loss_stops_with_step_and_term_and_keeps_the_state_before(tiny, tmp_path, bad):
    trainer = Trainer(tiny("spectral.weight=0.1"), tmp_path, console=QUIET)
    step = trainer.train_step

    def poison(parts, **options):
        if trainer.step == 3:
            if bad == "base":
                parts = [part._replace(noise=part.noise * float("inf")) for part in parts]
            else:
                broken = SpectralRegularizer(lambda a, b: a.flatten(1).sum(1) * float("nan"), weight=0.1)
                trainer.objective = dataclasses.replace(trainer.objective, regularizer=broken)
        return step(parts, **options)

    trainer.train_step = poison
    words = "base loss" if bad == "base" else "spectral term"
    with pytest.raises(NonFiniteLoss, match=f"step 4: the {words} is not finite"):
        trainer.run()
    saved = checkpoint.load(checkpoint.latest(tmp_path / "checkpoints"))
    assert saved.step == 3
    assert all(t.isfinite().all() for t in saved.model.values())


def test_a_gradient_that_is_not_finite_leaves_the_state_of_lambda_as_it_was(tiny, tmp_path):
    """The loss of step 4 is finite and its gradient is not: what is saved is the state after step 3, λ included."""
    config = tiny("spectral.weight=auto", "training.checkpoint_every=3")
    trainer = Trainer(config, tmp_path / "broken", console=QUIET)
    step = trainer.train_step

    def poison(parts, **options):
        if trainer.step == 3:
            next(trainer.model.parameters()).register_hook(lambda gradient: gradient * float("nan"))
        return step(parts, **options)

    trainer.train_step = poison
    with pytest.raises(NonFiniteLoss, match="step 4: the gradient norm is nan though the loss is finite"):
        trainer.run()
    train(tiny("spectral.weight=auto", "training.checkpoint_every=3"), tmp_path / "whole")
    states = [
        json.loads((tmp_path / folder / "checkpoints" / "step-00000003" / "state.json").read_text())["regularizer"]
        for folder in ("broken", "whole")
    ]
    assert states[0] == states[1]
    assert states[0]["weight.mass"] > 0


class Scaler(torch.amp.GradScaler):
    """A gradient scaler for the CPU, where accelerate has none."""

    def __init__(self):
        super().__init__("cpu", init_scale=2.0**16)


def scaled(config, folder):
    trainer = Trainer(config, folder, console=QUIET)
    trainer.accelerator.scaler = Scaler()
    trainer.optimizer = AcceleratedOptimizer(trainer.optimizer.optimizer, scaler=trainer.accelerator.scaler)
    trainer.accelerator._optimizers = [trainer.optimizer]
    return trainer


def test_skipped_steps_are_counted_and_too_many_in_a_row_stop_the_run(tiny, tmp_path):
    trainer = scaled(tiny("training.steps=80", "training.log_every=1"), tmp_path)
    bad = {"from": 5, "to": 7}

    def poison(gradient):
        return gradient * float("nan") if bad["from"] <= trainer.step < bad["to"] else gradient

    next(trainer.model.parameters()).register_hook(poison)
    before = {}
    step = trainer.train_step

    def watch(parts, **options):
        before[trainer.step] = next(trainer.model.parameters()).detach().clone()
        return step(parts, **options)

    trainer.train_step = watch
    bad_again = 40

    def turn_bad(parts, **options):
        if trainer.step == bad_again:
            bad.update({"from": bad_again, "to": 1000})
        return watch(parts, **options)

    trainer.train_step = turn_bad
    with pytest.raises(NonFiniteLoss, match="step 70: the gradient was not finite in 30 steps in a row"):
        trainer.run()
    assert torch.equal(before[5], before[7])  # both bad steps were skipped
    assert not torch.equal(before[7], before[8])
    records = {record["step"]: record.get("skipped", 0) for record in log(tmp_path)}
    assert (records[5], records[6], records[7], records[40], records[69]) == (0, 1, 2, 2, 31)
    assert Trainer(trainer.config, tmp_path, console=QUIET).gradient.skipped == 32


def test_sharded_weights_are_refused_in_a_sentence():
    class Sharded:
        distributed_type = DistributedType.FSDP

    with pytest.raises(
        ConfigError, match=r"plain data parallelism \(DDP\); got FSDP, which the trainer does not support"
    ):
        refuse_sharding(Sharded())
    Sharded.distributed_type = DistributedType.MULTI_CPU
    refuse_sharding(Sharded())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_lambda_fades_out_over_the_last_share_of_training(tiny, tmp_path, accumulate):
    """Twelve steps, the last half with a linear cooldown: λ is 0 at the last step, and one λ in all parts of a step."""
    options = ("training.steps=12", "spectral.weight=0.2", "spectral.warmup=2", "spectral.cooldown=0.5")
    config = tiny(*options, f"training.accumulate={accumulate}", "training.decay=constant")
    train(config, tmp_path)
    found = [record["lambda"] for record in log(tmp_path)]
    steps = np.arange(1, 13)
    up, down = np.clip(steps / 2, 0, 1), np.clip((12 - steps) / 6, 0, 1)
    np.testing.assert_allclose(found, 0.2 * up * down, atol=1e-6)
    longer = tiny(*options[1:], "training.steps=15", f"training.accumulate={accumulate}", "training.decay=constant")
    with pytest.raises(ConfigError, match=r"training\.steps = 12; got 15"):
        Trainer(longer, tmp_path)


def test_batches_must_divide(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"multiple of 3 .*; got 8"):
        Trainer(tiny("training.accumulate=3"), tmp_path)


def test_learning_rate_warms_up_and_decays(tiny):
    config = tiny("training.steps=102", "training.warmup=2", "training.lr=1.0")
    assert learning_rate(config, 0) == 0.5
    assert learning_rate(config, 2) == pytest.approx(1.0)
    assert learning_rate(config, 52) == pytest.approx(0.5)
    assert learning_rate(config, 101) < 1e-3
    assert learning_rate(tiny("training.decay=constant", "training.lr=1.0"), 5) == 1.0


def test_ema_is_the_weighted_mean_with_a_ramped_decay():
    model = torch.nn.Linear(1, 1, bias=False)
    ema = EMA(model, 0.5)
    expected = float(model.weight.detach())
    for update in range(1, 12):
        with torch.no_grad():
            model.weight.fill_(update)
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * update
        ema.update(model)
    assert float(ema.model.weight) == pytest.approx(expected, rel=1e-6)
