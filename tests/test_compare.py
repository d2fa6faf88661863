import json
import math
import statistics

import numpy as np
import pytest
import torch
from rich.console import Console

from specreg import compare, evaluation
from specreg.report import build_report
from specreg.training import checkpoint
from specreg.training.config import ConfigError

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny):
    """A finished comparison of three arms over two seeds, with its folder and config."""
    config = tiny("title=Tiny boards")
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    arms = compare.resolve_arms(config, ["none", "amplitude_phase@0", "haar@0.5"])
    result = compare.compare(config, folder, arms, range(2), command="specreg compare tiny", console=QUIET)
    return config, folder, arms, result


def weights(folder):
    return checkpoint.load(checkpoint.latest(folder / "checkpoints")).model


def test_arms_share_all_but_the_term(finished):
    """An arm with λ = 0 is the baseline to the bit, samples and metrics included; another λ is not."""
    _, folder, _, _ = finished
    for seed in (0, 1):
        none, zero, haar = (folder / f"{arm}-seed{seed}" for arm in ("none", "amplitude_phase@0", "haar@0.5"))
        assert all(torch.equal(a, b) for a, b in zip(weights(none).values(), weights(zero).values(), strict=True))
        assert np.array_equal(np.load(none / "samples/samples.npy"), np.load(zero / "samples/samples.npy"))
        metrics = [json.loads((cell / "results.json").read_text())["metrics"] for cell in (none, zero, haar)]
        assert metrics[0] == metrics[1] != metrics[2]


def test_table_holds_means_and_paired_differences(finished):
    _, folder, _, result = finished
    row = next(r for r in result["table"] if r["arm"] == "haar@0.5" and r["metric"] == "log_spectral_distance_db")
    values, baseline = (
        [
            json.loads((folder / f"{arm}-seed{seed}" / "results.json").read_text())["metrics"][row["metric"]]
            for seed in (0, 1)
        ]
        for arm in ("haar@0.5", "none")
    )
    assert row["mean"] == pytest.approx(statistics.fmean(values))
    assert row["std"] == pytest.approx(statistics.stdev(values))
    assert row["difference"]["mean"] == pytest.approx(statistics.fmean(values) - statistics.fmean(baseline))
    assert row["verdict"] in ("better", "worse", "no difference seen")


def test_finished_cells_are_never_run_again(finished):
    config, folder, arms, result = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("results.json")}
    again = compare.compare(config, folder, arms, range(2), command="specreg compare tiny", console=QUIET)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("results.json")} == before
    assert again["table"] == result["table"]


def test_report_is_written_from_the_folder_alone(finished):
    _, folder, _, _ = finished
    page = build_report(folder).read_text()
    assert "Tiny boards" in page
    assert "specreg compare tiny" in page
    for name in ("samples", "spectrum", "band_error", "losses"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 1000


def test_samples_depend_on_their_seed_not_on_their_batch(finished):
    _, folder, _, _ = finished
    config, model, _ = evaluation.load_model(folder / "haar@0.5-seed0")
    together = evaluation.draw_samples(config, model, (1, 16, 16))
    for settings in ({"batch_size": 1}, {"seed": 2, "count": 2}):
        one = config.model_copy(update={"sampling": config.sampling.model_copy(update=settings)})
        drawn = evaluation.draw_samples(one, model, (1, 16, 16))
        assert (drawn.int() - together[-len(drawn) :].int()).abs().max() <= 1  # 8-bit rounding of float noise


def test_paired_difference_is_students_t():
    difference = compare.paired_difference([1.0, 2.0, 4.0], [0.0, 0.5, 3.5], "lower")
    d = [1.0, 1.5, 0.5]
    half = 4.302652729911275 * statistics.stdev(d) / math.sqrt(3)  # t of 97.5% with 2 degrees of freedom
    assert difference == pytest.approx((1.0, 1.0 - half, 1.0 + half))
    assert compare.paired_difference([1.0], [0.0], "lower") is None
    assert compare.paired_difference([-1.0, -1.0], [3.0, 2.0], "zero").mean == pytest.approx(-1.5)


@pytest.mark.parametrize(
    ("low", "high", "better", "words"),
    [
        (-2, -1, "lower", "better"),
        (-2, -1, "zero", "better"),
        (-2, -1, "higher", "worse"),
        (1, 2, "higher", "better"),
        (1, 2, "lower", "worse"),
        (-1, 1, "lower", "no difference seen"),
    ],
)
def test_verdict_needs_an_interval_without_zero(low, high, better, words):
    assert compare.verdict(compare.Difference((low + high) / 2, low, high), better) == words
    assert compare.verdict(None, better) is None


def test_arms_by_name(tiny):
    config = tiny(
        "spectral.weight=0.2", "spectral.options={coupling: norm}", "spectral.noise_weight=snr",
        "arms.mine={name: bior1.3, weight: 3}",
    )  # fmt: skip
    arms = compare.resolve_arms(config, ["amplitude_phase", "haar@0.7", "mine", "mine@4"])
    assert list(arms) == ["none", "amplitude_phase", "haar@0.7", "mine", "mine@4"]
    assert arms["none"] is None
    assert arms["amplitude_phase"] == config.spectral
    assert (arms["haar@0.7"].weight, arms["haar@0.7"].options, arms["haar@0.7"].noise_weight) == (0.7, {}, "snr")
    assert (arms["mine"].name, arms["mine"].weight, arms["mine@4"].weight) == ("bior1.3", 3, 4)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["amplitud"], "arm 'amplitud': .*did you mean 'amplitude'"),
        (["haar@much"], "arm 'haar@much': expected a number after @"),
        (["haar@-1"], "arm 'haar@-1'"),
        (["none"], "at least one arm beside 'none'"),
    ],
)
def test_bad_arms_are_refused(tiny, names, words):
    with pytest.raises(ConfigError, match=words):
        compare.resolve_arms(tiny(), names)


def test_truth_of_boards_is_not_the_training_set(tiny):
    config = tiny()
    truth = evaluation.load_truth(config, count=16)
    assert truth.images.shape == (16, 1, 16, 16)
    assert set(truth.images.unique().tolist()) == {0, 255}
    values, _ = evaluation.measure(truth.images, config, truth)
    assert values["log_spectral_distance_db"] == 0
    assert values["board_fidelity"] == pytest.approx(1)
