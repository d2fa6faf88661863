import json
import math
import multiprocessing
import shutil
import statistics
import subprocess
import sys
import traceback

import numpy as np
import pytest
import torch
from rich.console import Console

from specreg import compare, evaluation
from specreg.compare import run, timing
from specreg.config import ConfigError
from specreg.metrics.scores import Unavailable
from specreg.metrics.spectra import from_uint8, mean_spectrum
from specreg.modalities import parse
from specreg.modalities.images import truth as images_truth
from specreg.modalities.images.sampling import draw_images
from specreg.modalities.images.truth import load_truth, measure
from specreg.report import build_report, schema
from specreg.training import checkpoint
from specreg.training.trainer import Trainer

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


def test_steps_are_timed_once(finished, monkeypatch):
    """A finished comparison asked for again trains no step, not even for its timing; another arm is timed."""
    config, folder, arms, result = finished
    steps = []
    train_step = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda *a, **k: steps.append(1) or train_step(*a, **k))
    command = "specreg compare tiny"
    again = compare.compare(config, folder, arms, range(2), command=command, console=QUIET)
    assert not steps
    assert again["step_seconds"] == result["step_seconds"]
    assert set(again["step_seconds"]) == set(arms)
    reordered = {name: arms[name] for name in ("none", "haar@0.5", "amplitude_phase@0")}
    compare.compare(config, folder, reordered, range(2), command=command, console=QUIET)
    assert steps
    compare.compare(config, folder, arms, range(2), command=command, console=QUIET)


def test_other_work_does_not_change_the_time_of_a_step(tmp_path, tiny, monkeypatch):
    """The fastest step counts, as other work on the machine can only add."""
    beside = {"none": [0.02, 0.02, 0.021, 0.02], "reg": [0.3, 0.021, 0.25, 0.4]}
    monkeypatch.setattr(timing, "step_seconds", lambda *a: beside)
    found = timing.kept_step_seconds(tiny(), list(beside), tmp_path)
    assert found == {"none": 0.02, "reg": 0.021}


def test_steps_that_end_early_are_not_timed(tiny):
    """A step that diverges does not reach the optimizer; it would pass for the fastest."""
    config = tiny("training.steps=6")
    arms = compare.resolve_arms(config, ["haar@1e38", "haar@0.1"])
    found = timing.step_seconds(config.model_copy(update={"arms": arms}), list(arms))
    assert {arm: len(seconds) for arm, seconds in found.items()} == {"none": 3, "haar@1e38": 0, "haar@0.1": 3}


def test_report_is_written_from_the_folder_alone(finished):
    _, folder, _, _ = finished
    page = build_report(folder).read_text()
    assert "Tiny boards" in page
    assert "specreg compare tiny" in page
    for name in ("samples", "spectrum", "band_error", "losses"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 1000


def test_results_have_the_fields_of_the_schema(finished):
    """What a real comparison writes is what schema.py says, no field more."""
    _, folder, _, _ = finished
    comparison = json.loads((folder / "comparison.json").read_text())
    results = json.loads((folder / "none-seed0" / "results.json").read_text())
    line = json.loads((folder / "none-seed0" / "metrics.jsonl").read_text().splitlines()[0])
    pairs = [
        (comparison, schema.ComparisonRecord),
        (comparison["truth"], schema.TruthRecord),
        (results, schema.ResultsRecord),
        (results["denoising"], schema.DenoisingRecord),
        (results["spectrum"], schema.SpectrumRecord),
        (line, schema.LogRecord),
        *((row, schema.RowRecord) for row in comparison["table"]),
        *((arm, schema.ArmRecord) for arm in comparison["arms"]),
        *((about, schema.MetricRecord) for about in comparison["metrics"].values()),
    ]
    for found, kind in pairs:
        assert not set(found) - set(kind.__annotations__), kind


def test_samples_depend_on_their_seed_not_on_their_batch(finished):
    _, folder, _, _ = finished
    trained = evaluation.load_trained(folder / "haar@0.5-seed0")
    assert (trained.shape, trained.step) == ((1, 16, 16), 6)
    config, network, shape = trained.config, trained.network, trained.shape
    together = draw_images(config, network, shape, range(4))
    for settings, indices in (({"batch_size": 1}, range(4)), ({"seed": 2}, range(2)), ({}, range(2, 4))):
        one = config.model_copy(update={"sampling": config.sampling.model_copy(update=settings)})
        drawn = draw_images(one, network, shape, indices)
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
        "spectral.name=amplitude_phase", "spectral.weight=0.2", "spectral.options={coupling: norm}",
        "spectral.noise_weight=snr",
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
        (["haar@"], "arm 'haar@': expected a number after @"),
        (["haar@ 0.1"], "arm 'haar@ 0.1': .*should match pattern"),
        (["none"], "at least one arm beside 'none'"),
    ],
)
def test_bad_arms_are_refused(tiny, names, words):
    with pytest.raises(ConfigError, match=words):
        compare.resolve_arms(tiny(), names)


def test_labels_say_what_an_arm_is(tiny):
    config = tiny("spectral={name: haar, weight: 0.25, noise_weight: snr, options: {levels: 2, mode: zero}}")
    assert compare.label(config.spectral) == "haar (levels 2, zero), λ 0.25, snr"
    assert compare.label(tiny("spectral.weight=3").spectral) == "amplitude, λ 3, snr"
    powered = tiny("spectral.weight=auto", "spectral.noise_options={power: 2}").spectral
    assert compare.label(powered) == "amplitude, λ auto (1), snr (power 2)"
    assert compare.label(None) == "baseline (no term)"
    assert compare.label(None, "calibrated") == "baseline × its own gain (no training)"


def test_arms_defined_in_yaml_keep_their_definition_whatever_they_are_called(tiny):
    config = tiny("arms={haar@0.3: {name: haar, weight: 7, options: {levels: 1}}}")
    arm = compare.resolve_arms(config, ["haar@0.3"])["haar@0.3"]
    assert (arm.weight, arm.options) == (7, {"levels": 1})


def test_seeds_have_latents_of_their_own_and_arms_share_them(finished):
    config, folder, _, _ = finished
    seeds = {
        path.parent.name: json.loads(path.read_text())["sampling"]["seed"] for path in folder.rglob("results.json")
    }
    assert {seeds[f"{arm}-seed0"] for arm in ("none", "haar@0.5")} == {0}
    assert {seeds[f"{arm}-seed1"] for arm in ("none", "haar@0.5")} == {config.sampling.count}


def test_an_interrupted_comparison_has_a_report_and_goes_on(tiny, tmp_path, monkeypatch):
    config, arms = tiny(), compare.resolve_arms(tiny(), ["haar"])
    run_cell = run._run_cell

    def stop_at_haar(study, arm, *rest):
        if arm == "haar":
            raise KeyboardInterrupt
        run_cell(study, arm, *rest)

    monkeypatch.setattr(run, "_run_cell", stop_at_haar)
    with pytest.raises(KeyboardInterrupt):
        compare.compare(config, tmp_path, arms, [0], command="-", console=QUIET)
    page = build_report(tmp_path).read_text()
    assert "not started" in page
    monkeypatch.setattr(run, "_run_cell", run_cell)
    result = compare.compare(config, tmp_path, arms, [0], command="-", console=QUIET)
    assert {row["arm"] for row in result["table"]} == {"none", "haar"}
    assert "not started" not in build_report(tmp_path).read_text()


def test_several_processes_share_the_cells_and_give_the_same_numbers(tmp_path, finished):
    config, folder, arms, alone = finished
    result = compare.compare(config, tmp_path, arms, range(2), jobs=2, command="-", console=QUIET)
    assert result["table"] == alone["table"]
    for cell in result["cells"]:
        ours, theirs = (np.load(f / cell["folder"] / "samples/samples.npy") for f in (tmp_path, folder))
        assert np.array_equal(ours, theirs)
    with pytest.raises(ConfigError, match="--jobs: expected at least 1"):
        compare.compare(config, tmp_path, arms, range(2), jobs=0, command="-", console=QUIET)


def test_a_cell_in_other_hands_is_left_to_them(tiny, tmp_path):
    with run._claim(tmp_path / "cell") as mine:
        assert mine
        code = "import pathlib, sys; from specreg.compare import run\n"
        code += "with run._claim(pathlib.Path(sys.argv[1])) as it: print(it)"
        command = [sys.executable, "-c", code, str(tmp_path / "cell")]
        theirs = subprocess.run(command, capture_output=True, text=True, check=True)
        assert theirs.stdout.strip() == "False"
    with run._claim(tmp_path / "cell") as again:
        assert again


def test_a_workers_problem_is_raised_at_once_and_no_process_stays(tiny, tmp_path, finished):
    config, _, arms, _ = finished
    (tmp_path / "none-seed0" / "metrics.jsonl").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"Is a directory: .*metrics.jsonl") as problem:
        compare.compare(config, tmp_path, arms, range(2), jobs=2, command="-", console=QUIET)
    shown = "".join(traceback.format_exception(problem.value))  # what SPECREG_TRACEBACK=1 prints
    assert "in a process of --jobs" in shown
    assert "in _run_cells" in shown
    assert not multiprocessing.active_children()


def test_a_failure_of_before_does_not_count_once_there_are_results(finished):
    config, folder, arms, result = finished
    stale = folder / "none-seed0" / "failure.json"
    stale.write_text('{"step": 3, "message": "an old failure"}')
    try:
        again = compare.compare(config, folder, arms, range(2), command="-", console=QUIET)
    finally:
        stale.unlink(missing_ok=True)
    assert again["table"] == result["table"]


def test_an_arm_that_diverges_is_noted_and_the_others_go_on(tiny, tmp_path):
    config = tiny("training.steps=3")
    arms = compare.resolve_arms(config, ["haar@1e38", "haar@0.1"])
    result = compare.compare(config, tmp_path, arms, [0], command="-", console=QUIET)
    assert {row["arm"] for row in result["table"]} == {"none", "haar@0.1"}
    failure = json.loads((tmp_path / "haar@1e38-seed0" / "failure.json").read_text())
    assert failure["step"] <= 3
    assert "not finite" in failure["message"] or "gradient norm" in failure["message"]
    assert build_report(tmp_path).is_file()
    only = tiny("training.steps=3", "training.lr=1e37", "training.warmup=0")
    with pytest.raises(RuntimeError, match="every run stopped; the first at step"):
        compare.compare(only, tmp_path / "all", compare.resolve_arms(only, ["haar"]), [0], command="-", console=QUIET)


def test_another_truth_is_measured_anew_without_training(tiny, tmp_path):
    rng = np.random.default_rng(0)
    for name, scale in (("train", 255), ("dark", 90), ("bright", 250)):
        np.save(tmp_path / f"{name}.npy", rng.integers(0, scale, (12, 16, 16, 1), dtype=np.uint8))
    base = ("data.kind=images", f"data.path={tmp_path}/train.npy")
    tables = []
    for truth in ("dark", "bright", "dark"):
        config = tiny(*base, f"data.test_path={tmp_path}/{truth}.npy")
        arms = compare.resolve_arms(config, ["haar"])
        tables.append(compare.compare(config, tmp_path / "run", arms, [0], command="-", console=QUIET)["table"])
    assert tables[0] == tables[2] != tables[1]
    lines = (tmp_path / "run" / "none-seed0" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == config.training.steps


def test_truth_of_another_kind_than_the_training_set_is_read_as_it_is(tiny, tmp_path):
    np.save(tmp_path / "colour.npy", np.random.default_rng(0).integers(0, 255, (6, 16, 16, 3), dtype=np.uint8))
    np.save(tmp_path / "grey.npy", np.random.default_rng(0).integers(0, 255, (6, 16, 16, 1), dtype=np.uint8))
    config = tiny("data.kind=images", f"data.path={tmp_path}/colour.npy", f"data.test_path={tmp_path}/grey.npy")
    assert evaluation.load_truth(config).images.shape == (6, 3, 16, 16)
    np.save(tmp_path / "one.npy", np.zeros((1, 16, 16, 3), dtype=np.uint8))
    config = tiny("data.kind=images", f"data.path={tmp_path}/colour.npy", f"data.test_path={tmp_path}/one.npy")
    with pytest.raises(ConfigError, match="expected at least 2 images; got 1"):
        evaluation.load_truth(config)


def test_floor_compares_real_images_with_others(tiny):
    config = tiny("sampling.count=8")
    record = load_truth(config, count=40).record()
    assert record["metrics"]["floor: log_spectral_distance_db"] > 0
    assert record["metrics"]["board_fidelity"] == pytest.approx(1)


def test_truth_of_boards_are_boards(tiny):
    config = tiny()
    truth = load_truth(config, count=16)
    assert truth.images.shape == (16, 1, 16, 16)
    assert set(truth.images.unique().tolist()) == {0, 255}
    values, _ = measure(config, truth.images, None, truth)
    assert values["log_spectral_distance_db"] == 0
    assert values["board_fidelity"] == pytest.approx(1)
    assert "mean_spread_db" not in values  # all of them are grey in the mean


def test_a_kernel_distance_is_measured_where_asked_for_or_said_to_be_missing(tiny, tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite_pytorch")
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 255, (8, 16, 16, 3), dtype=np.uint8))
    config = tiny("data.kind=images", f"data.path={tmp_path}/images.npy", "metrics.kernel_distance=true")
    arms = compare.resolve_arms(config, ["haar"])
    summary = compare.compare(config, tmp_path / "run", arms, [0], command="-", console=QUIET)
    rows = [row for row in summary["table"] if row["metric"] == "kernel_distance"]
    assert {row["arm"] for row in rows} == set(config.arms) | {"none", "haar"}
    assert "floor: kernel_distance" in summary["truth"]["metrics"]
    plain = evaluation.load_truth(config.model_copy(update={"metrics": type(config.metrics)()}))
    assert plain.fingerprint != evaluation.load_truth(config).fingerprint

    def unavailable(device):
        raise Unavailable("needs a package")

    monkeypatch.setattr(images_truth, "extractor", unavailable)
    truth = evaluation.load_truth(config)
    assert truth.features is None
    assert evaluation.evaluate(tmp_path / "run" / "haar-seed0", truth)["missing"] == {
        images_truth.IMAGE_METRICS["kernel_distance"].label: "needs a package"
    }


def test_a_comparison_that_is_refused_leaves_the_record_as_it_was(tiny, tmp_path):
    config, folder = tiny(), tmp_path / "boards"
    arms = compare.resolve_arms(config, ["haar@0.5"])
    compare.compare(config, folder, arms, [0], console=QUIET)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for change in ("training.lr=0.3", "data.resolution=32"):
        other = tiny(change)
        with pytest.raises(ConfigError, match=r"holds a run with .*; got .*such as name=boards-2"):
            compare.compare(other, folder, compare.resolve_arms(other, ["haar@0.1"]), [0], console=QUIET)
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_cells_that_a_comparison_leaves_out_are_named(tiny, tmp_path):
    config, console = tiny(), Console(record=True, width=500)
    compare.compare(config, tmp_path, compare.resolve_arms(config, ["haar@0.5"]), [0], console=QUIET)
    compare.compare(config, tmp_path, compare.resolve_arms(config, ["haar@0.1"]), [0], console=console)
    assert "not in this comparison, and left as they are: haar@0.5-seed0" in console.export_text()


def test_the_calibrated_baseline_is_that_of_the_network_that_is_there(tiny, tmp_path):
    config = tiny("training.decay=constant")
    arms = compare.resolve_arms(config, ["calibrated", "haar@0.5"])
    values = []
    for rate in (0.001, 0.02):
        config = tiny("training.decay=constant", f"training.lr={rate}")
        compare.compare(config, tmp_path, arms, [0], console=QUIET)
        values.append(json.loads((tmp_path / "calibrated-seed0" / "results.json").read_text())["metrics"])
        for arm in ("none", "haar@0.5"):
            shutil.rmtree(tmp_path / compare.cell_name(arm, 0))
    assert values[0] != values[1]


@pytest.mark.parametrize("where", ["samples", "metrics"])
def test_a_network_that_draws_no_numbers_is_noted_and_the_others_go_on(tiny, tmp_path, monkeypatch, where):
    """Training may end before it diverges: the last step's loss is that of the weights before it."""
    from specreg.modalities.images import modality, sampling

    def spoiled(function):
        def run(config, *args, **options):
            found = function(config, *args, **options)
            if config.spectral is None:
                return found
            if where == "samples":
                return found * math.nan
            return found._replace(values=dict.fromkeys(found.values, math.nan))

        return run

    if where == "samples":
        monkeypatch.setattr(sampling, "_by_timestep", spoiled(sampling._by_timestep))
    else:
        monkeypatch.setattr(modality.Images, "score", staticmethod(spoiled(modality.Images().score)))
    config = tiny()
    found = compare.compare(config, tmp_path, compare.resolve_arms(config, ["haar@0.5"]), [0, 1], console=QUIET)
    failure = json.loads((tmp_path / "haar@0.5-seed0" / "failure.json").read_text())
    assert failure["step"] == 6
    assert "not finite" in failure["message"]
    assert {row["arm"] for row in found["table"]} == {"none"}


def test_what_is_no_number_has_no_interval():
    assert compare.paired_difference([math.nan, 1.0, 2.0], [1.0, 1.0, 1.0], "lower") is None
    assert compare.paired_difference([math.inf, 1.0], [1.0, 1.0], "zero") is None


@pytest.mark.parametrize("name", ["none", "calibrated"])
def test_names_that_mean_the_baseline_are_no_arms_of_a_config(tiny, name):
    config = tiny(f"arms={{{name}: {{name: amplitude}}, haar: {{name: haar}}}}")
    with pytest.raises(ConfigError, match=f"arms.{name}: this name means"):
        compare.resolve_arms(config, list(config.arms))


def test_the_spread_of_image_means_is_what_numpy_says():
    """It sees images that are all of one colour, which no spectrum without means does."""
    config, rng = parse({"data": {"kind": "images", "path": "not-there"}}), np.random.default_rng(0)
    colours = rng.integers(40, 200, (12, 3, 1, 1)) + rng.integers(-20, 20, (12, 3, 8, 8))
    real = torch.from_numpy(colours.astype(np.uint8))
    spectrum = mean_spectrum(from_uint8(real))
    truth = images_truth.ImageTruth(real, spectrum)
    grey = (real.double() - real.double().mean((2, 3), keepdim=True) / 2 + 60).round().to(torch.uint8)
    values, _ = measure(config, grey, None, truth)
    means = [x.numpy().mean((2, 3)) for x in (grey, real)]
    assert values["mean_spread_db"] == pytest.approx(10 * np.log10(means[0].var(0).sum() / means[1].var(0).sum()))
    assert values["mean_spread_db"] == pytest.approx(-6.02, abs=0.1)
    assert values["contrast_db"] == pytest.approx(0, abs=0.05)
