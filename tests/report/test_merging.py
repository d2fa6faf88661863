"""Several folders on one page: runs of one arm, comparisons side by side, sets of samples beside a reference."""

import json
import math
import shutil
import statistics

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from report_folders import FREQUENCY, NASTY, POWER, TRUTH, Page, write_comparison, write_everything, write_run
from specreg.report import build_report, figures
from specreg.report.measured import measured
from specreg.report.merging import read_all

DB = "log_spectral_distance_db"


def write_seed(folder, seed, value, *, lr=1e-3):
    """Write a finished run whose config has a seed, and whose samples have one."""
    write_run(folder, "reg", seed, POWER["reg", seed % 2])
    config = f"name: {folder.name}\ntitle: x\nseed: {seed}\nlr: {lr}\nsampling: {{seed: {7 * seed}, steps: 5}}\n"
    (folder / "config.yaml").write_text(config)
    path = folder / "results.json"
    described = {DB: {"label": "distance", "unit": "dB", "better": "lower", "digits": 2}}
    truth = {"kind": "real boards", "spectrum": {"frequency": FREQUENCY, "power": TRUTH}}
    results = json.loads(path.read_text()) | {"metrics": {DB: value}, "described": described, "truth": truth}
    path.write_text(json.dumps(results))


def test_runs_that_differ_in_their_seed_are_one_arm_with_a_spread(tmp_path):
    values = [3.0, 4.0, 6.5]
    for seed, value in enumerate(values):
        write_seed(tmp_path / f"run{seed}", seed, value)
    write_seed(tmp_path / "other", 0, 2.0, lr=1e-4)
    folders = [tmp_path / name for name in ("run0", "run1", "other", "run2")]
    page = Page(build_report(folders, out=tmp_path / "page.html"))
    mean, std = statistics.fmean(values), statistics.stdev(values)
    assert page.row("reg (reg)|")[1] == f"{mean:.2f}|± {std:.2f}|"
    assert page.row("reg (other)|")[1] == "2.00|one seed|"
    assert "“One seed” marks a single value, of which no spread is known." in page.text
    assert sum(row[0] == "reg (reg)|" and row[2] == "finished|" for row in page.rows) == 3


def test_a_seed_given_twice_is_another_arm(tmp_path):
    for name in ("a", "b"):
        write_seed(tmp_path / name, 0, 3.0)
    files = read_all([tmp_path / "a", tmp_path / "b"])
    assert [arm.label for arm in files.arms] == ["reg (a)", "reg (b)"]
    assert len({arm.color for arm in files.arms}) == 2
    assert len(files.different_truths) == 1


def test_one_value_alone_says_so(tmp_path):
    write_seed(tmp_path / "run", 0, 3.0)
    page = Page(build_report(tmp_path / "run"))
    assert "One seed: no interval can be given." in page.text
    assert "One seed: no band can be given." in page.text


def test_comparisons_keep_their_own_differences(tmp_path):
    first, second = (write_everything(tmp_path / name) for name in ("first", "second"))
    content = json.loads((second / "comparison.json").read_text())
    for row in content["table"]:
        row["mean"] += 10
    (second / "comparison.json").write_text(json.dumps(content))
    page = Page(build_report([first, second], out=tmp_path / "both.html"))
    assert page.row(f"{NASTY} (first)|")[1] == "2.2|± 0.1|−0.9\n[−1.2 … −0.6]|better|"
    assert page.row(f"{NASTY} (second)|")[1] == "12.2|± 0.1|−0.9\n[−1.2 … −0.6]|better|"
    assert page.text.count("95% interval of the paired difference −1.2 … −0.6 dB") == 2
    assert "do not compare" not in page.text  # the real data are the same
    assert sum(row[0] == "real boards|" for row in page.rows) == 1  # of the one side that they have values on
    assert len([a for a in page.saved() if a.endswith("denoising.svg")]) == 2
    assert not (tmp_path / "figures").exists()


def test_different_real_data_are_told_apart(tmp_path):
    first, second = (write_comparison(tmp_path / name) for name in ("first", "second"))
    content = json.loads((second / "comparison.json").read_text())
    bands = FREQUENCY[:-1]
    content["truth"]["spectrum"] = {"frequency": bands, "power": [2.0 * power for power in TRUTH[:-1]]}
    (second / "comparison.json").write_text(json.dumps(content))
    for path in second.glob("*/results.json"):
        results = json.loads(path.read_text())
        results["spectrum"] = {"frequency": bands, "power": results["spectrum"]["power"][:-1]}
        path.write_text(json.dumps(results))
    files = read_all([first, second])
    errors = {arm.label: curves for arm, curves in figures.band_errors(files).items()}
    ours, theirs = errors[f"{NASTY} (first)"], errors[f"{NASTY} (second)"]
    np.testing.assert_allclose(ours.every[:, :5] - theirs.every, 10 * math.log10(2))  # each to its own truth
    page = Page(build_report([first, second], out=tmp_path / "both.html"))
    assert "Not all of these were measured against the same real data" in page.text
    for name in ("first", "second"):
        assert page.row(f"real boards ({name})|")[1] == "0.2|real against real|"


def test_folder_given_twice_and_folder_of_nothing_are_refused(tmp_path):
    write_comparison(tmp_path / "one")
    with pytest.raises(ValueError, match=r"one: expected each folder once"):
        build_report([tmp_path / "one", tmp_path / "." / "one"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: expected a comparison folder"):
        build_report([tmp_path / "one", tmp_path / "empty"])


def test_config_that_is_no_yaml_names_the_file(tmp_path):
    for seed in (0, 1):
        write_seed(tmp_path / f"run{seed}", seed, 1.0)
    (tmp_path / "run1" / "config.yaml").write_text("a: [1\nb: {")
    with pytest.raises(ValueError, match=r"run1/config\.yaml: expected YAML"):
        build_report([tmp_path / "run0", tmp_path / "run1"])


def spectrum(name, power, **more):
    low, high = ([factor * value for value in power] for factor in (0.9, 1.2))
    return {
        "name": name,
        "samples": 50,
        "frequency": [0.1, 0.3],
        "power": power,
        "power_low": low,
        "power_high": high,
    } | more


def test_sets_of_samples_carry_intervals(tmp_path):
    distance = {"value": 3.0, "low": 2.5, "high": 3.75}
    record = {
        "reference": spectrum("real/", [1.0, 0.1]),
        "sets": [spectrum("mine", [1.0, 0.05], log_spectral_distance_db=distance, high_band_db=None)],
        "split_half_db": {"value": 0.25, "low": 0.2, "high": 0.3},
    }
    part = measured(record, said={"mine": ["mine lacks 50% (40 … 60%) of the energy."]})
    page = Page(build_report([], out=tmp_path / "page.html", measured=[part]))
    assert page.row("mine|")[1] == "3.00|[2.50 … 3.75]|"
    assert page.row("real/|")[1] == "0.25|real against real|"
    assert "In brackets under a value: its 95% interval over samples." in page.text
    assert "Bands are 95% intervals over samples." in page.text
    assert "mine lacks 50% (40 … 60%)" in page.text.replace("\u00a0", " ")
    assert "seed" not in page.text
    lines = page.saved()["mine-beside-real-band-error.csv"].decode().splitlines()
    row = dict(
        zip(
            lines[0].replace("frequency, ", "").replace("data, ", "").replace('"', "").split(","),
            lines[2].split(","),
            strict=True,
        )
    )
    assert float(row["relative to real dB"]) == pytest.approx(10 * math.log10(0.5))
    assert float(row["high"]) == pytest.approx(10 * math.log10(0.6))
    assert row["from low to high"] == "95% interval"


def test_sets_stand_beside_runs(tmp_path):
    write_comparison(tmp_path / "boards")
    distance = {"value": 3.0, "low": 2.5, "high": 3.75}
    sets = [spectrum("mine", [1.0, 0.05], log_spectral_distance_db=distance)]
    record = {"reference": spectrum("real", [1.0, 0.1]), "sets": sets}
    page = Page(build_report([tmp_path / "boards"], out=tmp_path / "page.html", measured=[measured(record)]))
    assert "Sets of samples: bands are 95% intervals over samples." in page.text
    assert [row[0] for row in page.rows if row[0] == "mine|"] == ["mine|"]  # no row among the runs


@pytest.mark.parametrize(
    "record", [{}, {"reference": {}, "sets": []}, {"reference": spectrum("a", [1.0]), "sets": [{}]}]
)
def test_record_of_something_else_is_refused(record):
    with pytest.raises(ValueError, match="expected"):
        measured(record)


def test_order_of_folders_is_that_of_the_page(tmp_path):
    write_comparison(tmp_path / "b")
    shutil.copytree(tmp_path / "b", tmp_path / "a")
    assert [part.title for part in read_all([tmp_path / "b", tmp_path / "a"]).parts] == ["b", "a"]
