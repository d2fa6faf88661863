from __future__ import annotations

import ast
import json
import shutil
from base64 import b64decode
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
Image = pytest.importorskip("PIL.Image")

from disks import room_for  # noqa: E402
from report_folders import (  # noqa: E402
    EDGES,
    ERROR,
    FREQUENCY,
    LAMBDA,
    LOG_SNR,
    MAGENTA,
    NASTY,
    POWER,
    TRUTH,
    Page,
    comparison,
    log_lines,
    truth_images,
    two_sided,
    write_comparison,
    write_everything,
    write_maps,
    write_run,
)
from specreg._files import WriteError  # noqa: E402
from specreg.report import build_report, figures, heatmaps, logs, pictures, summary_rows, verdicts  # noqa: E402
from specreg.report.colors import ARM_COLORS, BASELINE_COLOR, arm_colors  # noqa: E402
from specreg.report.pictures import MAT, panels, samples_figure, tile  # noqa: E402
from specreg.report.reading import read_files, read_log  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_comparison(tmp_path_factory.mktemp("runs") / "boards")
    assert build_report(folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(folder / "report.html")


# --- the page


def test_page_is_self_contained(page: Page) -> None:
    names = {tag for tag, _ in page.tags}
    assert names.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form", "b"})
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 3 + 4  # truth and two arms; spectrum, band error, base loss, spectral term
    for image in images:
        assert image["alt"]
        kind, _, content = image["src"].partition(";base64,")
        start = {"data:image/png": b"\x89PNG\r\n", "data:image/svg+xml": b"<?xml"}[kind]
        assert b64decode(content, validate=True).startswith(start)
    for _, attributes in page.tags:
        assert {"poster", "onclick", "onload"}.isdisjoint(attributes)
        assert (attributes.get("srcset") or "data:image/svg+xml;base64,").startswith("data:image/svg+xml;base64,")
        assert all("http" not in (attributes.get(name) or "") for name in ("href", "src", "style"))
    assert not page.stack  # every tag is closed
    policy = next(a for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert "default-src 'none'" in policy["content"]


def test_page_links_lead_to_the_runs_files(folder: Path, page: Page) -> None:
    links = page.links()
    assert len(links) == 4 * 4 + 3  # folder, config, log, results; the unfinished cell has no results
    for link in links:
        assert link.startswith("./")
        assert urlsplit(link)[:2] + urlsplit(link)[3:] == ("", "", "", "")  # a path, with "#" and "%" quoted
        assert (folder / unquote(link)).exists()


def test_page_elsewhere_still_links_to_the_runs(folder: Path, tmp_path: Path) -> None:
    out = build_report(folder, out=tmp_path / "deep" / "page.html")
    links = Page(out).links()
    assert out.is_file()
    assert links
    assert all((out.parent / unquote(link)).exists() for link in links)


def test_table_holds_the_numbers_of_comparison_json(page: Page) -> None:
    assert page.row("arm|") == [
        "arm|", "log-spectral distance ↓|dB|", "energy share ↑|", "time|per step|",
    ]  # fmt: skip
    assert page.row("real boards|") == ["real boards|", "0.2|real against real|", "1.000|", ""]
    assert page.row("baseline|")[1:] == ["3.1|± 0.2|", "0.950|± 0.010|", "50.0 ms|× 1.00|"]
    reg = page.row(f"{NASTY}|")
    assert reg[1:] == [
        "2.2|± 0.1|−0.9\n[−1.2 … −0.6]|better|",
        "0.970|± 0.020|+0.020\n[−0.010 … +0.050]|no difference seen|",
        "53.5 ms|× 1.07|",
    ]


def test_only_a_best_arm_with_the_verdict_better_is_bold(page: Page) -> None:
    assert page.strong == ["2.2"]  # 0.970 is the higher share, but no difference was seen


def test_page_names_unfinished_cells_and_truncated_lines(page: Page) -> None:
    assert "baseline, seed 2 (no results.json; last logged step 120)" in page.text
    assert f"{NASTY}, seed 2 (not started)" in page.text
    assert "1 truncated last line of metrics.jsonl left out: baseline, seed 2." in page.text


def test_page_shows_command_config_and_facts_as_written(page: Page) -> None:
    for text in (comparison()["command"], comparison()["config"], "2026-11-22 17:40", "specreg 0.1.0"):
        assert text.strip() in page.text
    assert "1\u202f234\u202f567 parameters; sampled with ddim 5 steps." in page.text


def test_same_folder_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    first = {path.name: path.read_bytes() for path in (folder / "figures").iterdir()}
    out = build_report(folder, out=folder / "again.html")
    assert out.read_bytes() == (folder / "report.html").read_bytes()
    assert {path.name: path.read_bytes() for path in (folder / "figures").iterdir()} == first


def test_a_full_disk_is_a_sentence_and_leaves_no_figure_that_is_cut(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "boards", ignore=shutil.ignore_patterns("figures", "report.html"))
    with room_for(20_000), pytest.raises(WriteError, match=r"figures/\w+\.png: cannot be written \(File too large\)"):
        build_report(tmp_path / "boards")
    left = tmp_path / "boards" / "figures"
    assert [path.name for path in left.iterdir() if path.suffix != ".png" or path.stat().st_size >= 20_000] == []
    assert not (tmp_path / "boards" / "report.html").exists()


# --- words and rows


def test_summary_rows() -> None:
    content = comparison()
    header, *rows = summary_rows(content)
    assert header[-2:] == ["baseline", NASTY]
    assert [[row[0], *row[-2:]] for row in rows] == [
        ["log-spectral distance, dB ↓", "3.1 ± 0.2", "2.2 ± 0.1\n−0.9 [−1.2 … −0.6]\nbetter"],
        ["energy share ↑", "0.950 ± 0.010", "0.970 ± 0.020\n+0.020 [−0.010 … +0.050]\nno difference seen"],
        ["time per step", "50.0 ms × 1.00", "53.5 ms × 1.07"],
    ]
    assert len({len(row) for row in summary_rows(content)}) == 1


def test_verdict_says_how_sure_it_is_and_what_got_worse(page: Page) -> None:
    content = comparison()
    text = (
        "log-spectral distance 3.1 dB → 2.2 dB (better, 95% interval of the paired difference −1.2 … −0.6 dB, 2 seeds)."
    )
    assert verdicts(content) == [f"{NASTY}: {text}"]
    assert text in page.text
    content["table"][3]["verdict"] = "worse"
    assert verdicts(content) == [f"{NASTY}: {text} But worse: energy share."]
    for row in content["table"]:
        row.update(n=1, std=None, difference=None, verdict=None)
    assert verdicts(content)[0].endswith("3.1 dB → 2.2 dB (one seed: a lead, not a result).")
    content["table"] = content["table"][:1]
    assert verdicts(content) == [f"{NASTY}: nothing to compare yet."]


def test_metric_that_only_the_table_names_is_shown() -> None:
    content = comparison()
    content["table"].append({"arm": "none", "metric": "tail_error_db", "mean": -0.00004, "n": 1})
    row = summary_rows(content)[-2]
    assert (row[0], *row[-2:]) == ("tail error, dB", "0.000", "–")


# --- figures


def test_samples_figure_holds_the_truths_pixels(folder: Path) -> None:
    shown = np.asarray(Image.open(folder / "figures" / "samples.png").convert("RGB"))
    truth = truth_images()
    # The magenta pixel is in the truth's first image and, arms being the truth reversed, in their last.
    found = np.argwhere((shown == MAGENTA).all(-1))
    first = found[found[:, 1] == found[:, 1].min()]
    zoom = first[:, 0].max() - first[:, 0].min() + 1
    assert zoom >= 2
    assert len(found) == 3 * zoom * zoom
    for index, image in enumerate(truth[:2]):
        left = first[0, 1] + index * zoom * (6 + 1)  # a gap of one pixel
        block = shown[first[0, 0] : first[0, 0] + 8 * zoom, left : left + 6 * zoom]
        np.testing.assert_array_equal(block, image.repeat(zoom, axis=0).repeat(zoom, axis=1))


def test_tile_places_images_row_by_row_and_greys_one_channel() -> None:
    images = np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1).repeat(4, 1).repeat(4, 2)
    grid, count = tile(images)
    assert (count, grid.shape) == (7, (2 * 5 + 1, 5 * 5 + 1, 3))
    assert grid[1::5, 1::5, 0].tolist() == [[0, 1, 2, 3, 4], [5, 6, MAT, MAT, MAT]]
    assert (grid[0] == MAT).all()


def test_band_error_has_a_floor_and_the_right_sign() -> None:
    truth = np.array([1.0, 1.0, 0.0, 1e-9])
    error = figures.band_error_db(np.array([2.0, 0.1, 0.0, 1e-7]), truth)
    np.testing.assert_allclose(error, [3.0103, -10, 0, 0], atol=1e-4)
    floor = (2 / 255) ** 2 / 12
    np.testing.assert_allclose(figures.band_error_db(np.array([10 * floor]), np.array([0.0])), [10])


def test_curves_are_means_over_seeds_in_a_band_from_lowest_to_highest(folder: Path) -> None:
    figure = figures.band_error_figure(read_files(folder))
    (axes,) = figure.axes
    floor = (2 / 255) ** 2 / 12
    power, truth = np.array([POWER["reg", 0], POWER["reg", 1]]), np.array(TRUTH)
    expected = 10 * np.log10(np.maximum(power, floor) / np.maximum(truth, floor))
    lines = [line for line in axes.lines if len(line.get_xdata()) == len(TRUTH)]
    assert len(lines) == 2
    np.testing.assert_allclose(lines[1].get_ydata(), expected.mean(axis=0))
    edges = axes.collections[1].get_paths()[0].vertices
    for at, low, high in zip(FREQUENCY, expected.min(axis=0), expected.max(axis=0), strict=True):
        inside = edges[edges[:, 0] == at, 1]
        np.testing.assert_allclose([inside.min(), inside.max()], [low, high], atol=1e-12)


@pytest.mark.parametrize("name", ["spectrum", "band_error", "losses"])
def test_every_arm_has_its_colour_in_every_figure(folder: Path, name: str) -> None:
    pixels = np.asarray(Image.open(folder / "figures" / f"{name}.png").convert("RGB")).reshape(-1, 3)
    colours = [arm.color for arm in read_files(folder).arms] + ["#000000"] * (name != "losses")
    for colour in colours:
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == rgb).all(axis=1).sum() > 200, colour


def test_smoothing_keeps_straight_lines_and_averages_noise() -> None:
    line = np.linspace(1, 5, 200)
    np.testing.assert_allclose(logs.smooth(line), line)
    noise = np.random.default_rng(0).standard_normal(4000)
    assert logs.smooth(noise)[100:-100].std() < 2 / np.sqrt(101)
    np.testing.assert_array_equal(logs.smooth(line[:1]), line[:1])


def test_log_keeps_the_last_of_repeated_steps_and_reads_null_as_nan(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "base": 3}\n{"step": 2, "base": 9}\n\n{"step": 2, "base": 4, "spectral": null}\n')
    log, truncated = read_log(path)
    assert truncated == 0
    assert log["step"].tolist() == [1, 2]
    assert log["base"].tolist() == [3, 4]
    assert np.isnan(log["spectral"]).all()


# --- denoising, and where the term acts


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the comparison with everything that newer runs write, and its report."""
    folder = write_everything(tmp_path_factory.mktemp("runs") / "mapped")
    build_report(folder)
    return folder


def drawn(figure: Any) -> list[tuple[np.ndarray, Any]]:
    """Return array and colour limits of each image in a figure that is not a colour bar."""
    return [(np.asarray(image.get_array()), image) for axes in figure.axes for image in axes.images]


def test_denoising_maps_hold_the_baselines_error_and_paired_differences(mapped: Path) -> None:
    heatmap = heatmaps.denoising(read_files(mapped))
    (error, base), (difference, reg) = drawn(heatmaps.figure(heatmap))
    # Rows are written from clean to noisy and drawn from noisy, on top, to clean.
    np.testing.assert_allclose(error, [[-1, 0], [-8.5, -6], [-21, -10]])
    np.testing.assert_allclose(difference, [[-0.375, 5.25], [0.75, -0.25], [-0.5, 0]])
    assert base.get_clim() == (-21, 0)
    assert reg.get_clim() == (-3, 3)  # within a factor of two, whatever one arm does
    assert base.origin == reg.origin == "upper"
    red, _, blue, _ = reg.cmap(reg.norm(-3.0))
    assert blue > 0.3 > red  # less error than the baseline
    assert heatmap.scales[1].extend == "max"
    assert [round(heatmaps.snr_db(x), 6) for x in heatmap.log_snr] == [-20, 0, 10]
    axes = reg.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "0.25", "0.5"]
    assert axes.get_ylim() == (3, 0)


def test_calibration_is_the_gain_in_decibels_with_the_noisiest_level_on_top(mapped: Path, tmp_path: Path) -> None:
    assert heatmaps.calibration(read_files(mapped)) is None  # runs of before have none
    copy = Path(shutil.copytree(mapped, tmp_path / "copy"))
    for path in copy.glob("*/results.json"):
        results = json.loads(path.read_text())
        if "denoising" in results:
            gain = [[2.0, 1.0], [0.5, None], [1.0, 10.0]]
            results["denoising"]["gain"] = gain[: len(results["denoising"]["log_snr"])]
            path.write_text(json.dumps(results))
    heatmap = heatmaps.calibration(read_files(copy))
    order = np.argsort(results["denoising"]["log_snr"])
    expected = 20 * np.log10(np.array(gain, dtype=float))[order]
    for values, image in drawn(heatmaps.figure(heatmap)):
        np.testing.assert_allclose(values.astype(float), expected)
        assert image.get_clim() == (-3, 3)
        red, _, blue, _ = image.cmap(image.norm(3.0))
        assert blue > red  # the network holds back what it knows
    assert "Calibration of the denoiser" in build_report(copy).read_text()
    assert (copy / "figures" / "calibration.png").is_file()


def test_dots_mark_where_all_seeds_agree(mapped: Path) -> None:
    heatmap = heatmaps.denoising(read_files(mapped))
    (panel,) = heatmap.scales[1].panels
    assert panel.agree.tolist() == [[True, True], [True, False], [True, False]]
    assert not heatmap.scales[0].panels[0].agree.any()
    dots = heatmaps.figure(heatmap).axes[1].lines[0]
    assert sorted(zip(dots.get_xdata(), dots.get_ydata(), strict=True)) == [
        (0.5, 0.5),
        (0.5, 1.5),
        (0.5, 2.5),
        (1.5, 0.5),
    ]
    assert (
        "the same sign in all 2 seeds; by luck alone one cell in 2 would have it" in Page(mapped / "report.html").text
    )


def test_one_seed_has_no_dots(mapped: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(mapped, tmp_path / "copy"))
    (copy / "reg: seed#1 50%" / "results.json").unlink()
    heatmap = heatmaps.denoising(read_files(copy))
    (panel,) = heatmap.scales[1].panels
    np.testing.assert_allclose(panel.values, [[-0.5, 5], [1, 0], [-0.5, -0.5]])  # seed 0 against seed 0
    assert not panel.agree.any()
    assert "by luck alone" not in Page(build_report(copy)).text


def test_action_is_the_mean_pull_of_arms_with_a_term(mapped: Path) -> None:
    heatmap = heatmaps.action(read_files(mapped))
    ((pull, image),) = drawn(heatmaps.figure(heatmap))
    np.testing.assert_allclose(pull, [[-60, -55], [-30, -20], [-12, 1]])  # each seed at least -60 dB
    assert image.get_clim() == (-60, 1)
    assert heatmap.scales[0].panels[0].arm.name == "reg"


def test_page_shows_the_maps_and_saves_them(mapped: Path) -> None:
    page = Page(mapped / "report.html")
    alts = [a["alt"] for tag, a in page.tags if tag == "img"]
    assert sum(alt.startswith("Heat map, baseline") for alt in alts) == 1
    assert sum(alt.startswith(f"Heat map, {NASTY}") for alt in alts) == 2  # difference and pull
    assert any("−0.50 … +5.25 dB" in alt for alt in alts)
    assert {"denoising.png", "action.png", "lambda.png"} <= {path.name for path in (mapped / "figures").iterdir()}
    assert not page.stack


def test_older_folders_have_none_of_it(folder: Path, page: Page) -> None:
    files = read_files(folder)
    assert heatmaps.heatmaps(files) == []
    assert logs.weighed(files) == []
    assert logs.lambda_figure(files) is None
    assert {path.stem for path in (folder / "figures").iterdir()} == {"samples", "spectrum", "band_error", "losses"}
    for words in ("noise level", "term acts", "Weight of the term", "drawn from noise", "One-step"):
        assert words not in page.text


def test_single_run_shows_its_error_alone(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "reg", 0, POWER["reg", 0])
    write_maps(tmp_path / "run", "reg", 0)
    heatmap = heatmaps.denoising(read_files(tmp_path / "run"))
    ((error, _),) = drawn(heatmaps.figure(heatmap))
    np.testing.assert_allclose(error, ERROR["reg", 0][::-1])
    assert "differences paired" not in Page(build_report(tmp_path / "run")).text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log_snr": [2.0, 0.0, -4.0]}, r"seed#1 50%: log_snr of denoising differs"),
        ({"error_db": [[0.0, 1.0]]}, r"3 noise levels and 2 bands but error_db \[1, 2\]"),
        ({"pull_db": [[0.0], [0.0], [0.0]]}, r"but pull_db \[3, 1\]"),
        ({"edges": "wide"}, "expected arrays of numbers"),
    ],
)
def test_maps_of_another_shape_are_refused(mapped: Path, tmp_path: Path, change: Any, message: str) -> None:
    copy = Path(shutil.copytree(mapped, tmp_path / "copy"))
    path = copy / "reg: seed#1 50%" / "results.json"
    results = json.loads(path.read_text())
    results["denoising"] |= change
    path.write_text(json.dumps(results))
    with pytest.raises(ValueError, match=message):
        build_report(copy)


# --- λ in force


def test_lambda_figure_draws_means_in_a_band_from_lowest_to_highest(mapped: Path) -> None:
    figure = logs.lambda_figure(read_files(mapped))
    weight, ratio = figure.axes
    assert weight.get_yscale() == ratio.get_yscale() == "log"
    (line,) = weight.lines  # the baseline has no λ; 0 at the first step is off the axis
    seeds = np.array([[LAMBDA["reg"](seed, i) for i in range(1, 12)] for seed in (0, 1)])
    np.testing.assert_allclose(line.get_xdata(), 10 * np.arange(2, 13))
    np.testing.assert_allclose(line.get_ydata(), seeds.mean(axis=0))
    edges = weight.collections[0].get_paths()[0].vertices
    inside = edges[edges[:, 0] == 120, 1]
    np.testing.assert_allclose([inside.min(), inside.max()], [0.04, 0.08])
    (line,) = ratio.lines  # measured at every other step
    np.testing.assert_allclose(line.get_xdata(), 10 * np.arange(1, 13, 2))
    expected = np.mean([[3 * LAMBDA["reg"](seed, i) + 0.5 for i in range(0, 12, 2)] for seed in (0, 1)], axis=0)
    np.testing.assert_allclose(line.get_ydata(), expected)


def test_lambda_of_zero_is_drawn_on_a_plain_axis(tmp_path: Path) -> None:
    write_run(tmp_path, "reg", 0, None)
    lines = [{"step": i, "base": 1.0, "lambda": 0.0, "gradient_ratio": 0.0} for i in range(1, 9)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (axes,) = logs.lambda_figure(read_files(tmp_path)).axes
    assert axes.get_yscale() == "linear"
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), np.zeros(8))


def test_running_median_passes_over_outliers() -> None:
    value = np.linspace(1, 2, 400)
    spoiled = value.copy()
    spoiled[200] = 1000
    assert np.abs(logs.running_median(spoiled) - value).max() < 0.01
    windows = [np.median(value[i - r : i + r + 1]) for i in range(400) for r in [min(5, i, 399 - i)]]
    np.testing.assert_array_equal(logs.running_median(value), windows)


# --- two sides, many arms, failed runs


def test_sides_have_their_own_tables_and_rows(mapped: Path) -> None:
    page = Page(mapped / "report.html")
    assert [row for row in page.rows if row[0] == "arm|"][:2] == [
        ["arm|", "log-spectral distance ↓|dB|", "energy share ↑|", "time|per step|"],
        ["arm|", "denoising error ↓|dB|", "tail ↓|dB|"],
    ]
    assert ["baseline|", "−8.00|± 0.10|", "−1.00|± 0.10|"] in page.rows
    assert "Samples" in page.text
    assert "a network that denoises better may draw worse samples" in page.text
    assert page.strong == ["2.2", "−8.50"]
    names = [row[0] for row in summary_rows(two_sided(comparison()))]
    assert names == [
        "", "Samples", "log-spectral distance, dB ↓", "energy share ↑",
        "One-step denoising of real data", "denoising error, dB ↓", "tail, dB ↓", "Cost", "time per step",
    ]  # fmt: skip


def test_verdict_has_a_clause_for_each_side() -> None:
    one_sided = verdicts(comparison())
    second = "Denoising error −8.00 dB → −8.50 dB (better). But worse: tail."
    assert verdicts(two_sided(comparison())) == [f"{one_sided[0]} {second}"]
    stopped = two_sided(comparison())
    stopped["table"] = [row for row in stopped["table"] if row["arm"] == "none"]
    assert verdicts(stopped) == [f"{NASTY}: nothing to compare yet."]


def test_unknown_side_is_refused() -> None:
    with pytest.raises(ValueError, match="side must be one of samples, denoising; got 'left'"):
        summary_rows(comparison() | {"metrics": {"x": {"side": "left"}}})


def many_arms() -> list[dict[str, Any]]:
    """Return a baseline and 13 arms of three losses, the λ of each loss in no order."""
    weights = {
        "amplitude": ["1", "0.01", "auto", "0.1", "10"],
        "haar": ["0.1", "1", "0.01", "auto:0.3"],
        "db4": ["1", "10", "2", "3"],
    }
    return [{"name": "none"}, *({"name": f"{loss}@{w}"} for loss, every in weights.items() for w in every)]


def test_summary_of_many_arms_has_a_row_an_arm() -> None:
    content = two_sided(comparison())
    content["arms"] += [arm for arm in many_arms() if arm["name"] != "none"]
    rows = summary_rows(content)
    assert len({len(row) for row in rows}) == 1
    assert rows[0] == ["Samples", "log-spectral distance, dB ↓", "energy share ↑", "time per step"]
    assert rows[3] == [
        NASTY, "2.2 ± 0.1\n−0.9\n[−1.2 … −0.6]\nbetter",
        "0.970 ± 0.020\n+0.020\n[−0.010 … +0.050]\nno difference seen", "53.5 ms × 1.07",
    ]  # fmt: skip
    start = 1 + 1 + len(content["arms"])  # header and real images
    assert rows[start] == ["One-step denoising of real data", "denoising error, dB ↓", "tail, dB ↓", ""]
    assert rows[start + 1][:2] == ["baseline", "−8.00 ± 0.10"]


def lab(color: str) -> np.ndarray:
    """Return a colour as CIELAB (D65)."""
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(matrix) @ linear / [0.9505, 1, 1.089]
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_colours_of_many_arms_stay_apart_and_darken_with_lambda() -> None:
    colors = arm_colors({"arms": many_arms(), "baseline": "none"})
    assert colors["none"] == BASELINE_COLOR
    points = np.stack([lab(color) for color in colors.values()])
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)[np.triu_indices(len(points), 1)]
    assert apart.min() > 10  # a just noticeable difference is about 2.3
    for loss, order in {"amplitude": ["0.01", "0.1", "1", "10", "auto"], "db4": ["1", "2", "3", "10"]}.items():
        light = [lab(colors[f"{loss}@{weight}"])[0] for weight in order]
        assert light == sorted(light, reverse=True)
    hues = {loss: np.arctan2(*lab(colors[f"{loss}@1"])[:0:-1]) for loss in ("amplitude", "haar", "db4")}
    assert len({round(float(hue), 1) for hue in hues.values()}) == 3


def test_a_few_losses_keep_the_palette_in_order() -> None:
    names = ["none", "amplitude", "haar@0.1", "db4@auto", "bior1.3"]
    colors = arm_colors({"arms": [{"name": name} for name in names], "baseline": "none"})
    assert list(colors.values()) == [BASELINE_COLOR, *ARM_COLORS[:4]]
    twelve = arm_colors({"arms": [{"name": f"loss{i}"} for i in range(12)], "baseline": None})
    assert len({twelve[f"loss{i}"] for i in range(12)}) == 12


def test_many_arms_fit_on_the_page(tmp_path: Path) -> None:
    arms = many_arms()
    content = comparison() | {"arms": arms, "seeds": [0], "table": [], "metrics": {}}
    content["cells"] = [{"arm": arm["name"], "seed": 0, "folder": f"run{i}"} for i, arm in enumerate(arms)]
    for i, arm in enumerate(arms):
        write_run(tmp_path / f"run{i}", arm["name"], 0, POWER["reg", 0])
        path = tmp_path / f"run{i}" / "results.json"
        record = {"log_snr": LOG_SNR, "edges": EDGES, "error_db": (np.array(ERROR["none", 0]) + i).tolist()}
        path.write_text(json.dumps(json.loads(path.read_text()) | {"denoising": record}))
    (tmp_path / "comparison.json").write_text(json.dumps(content))
    files = read_files(tmp_path)
    figure = heatmaps.figure(heatmaps.denoising(files))
    assert figure.get_figwidth() <= 14
    maps = drawn(figure)
    assert [float(values[0, 1]) for values, _ in maps] == list(range(14))
    assert len({image.get_clim() for _, image in maps[1:]}) == 1
    wide, high = samples_figure(panels(files)).get_size_inches()
    assert 0.2 < high / wide < 1.5


def test_failed_run_says_where_it_stopped(mapped: Path) -> None:
    page = Page(mapped / "report.html")
    why = "stopped at step 120: the spectral term is not finite"
    assert f"Failed, and not in the numbers below: {NASTY}, seed 2 ({why})." in page.text
    unfinished = page.text[page.text.index("Unfinished,") :]
    assert unfinished.startswith("Unfinished, and not in the numbers below: baseline, seed 2 (no results.json")
    assert [NASTY + "|", "2|", why + "|"] in [row[:3] for row in page.rows]


def test_results_outdo_an_earlier_failure_and_bad_failures_are_refused(mapped: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(mapped, tmp_path / "copy"))
    cell = copy / "reg: seed#0 50%"
    (cell / "failure.json").write_text('{"step": 7, "message": "x"}')
    assert "stopped at step 7" not in Page(build_report(copy)).text
    (cell / "results.json").unlink()
    assert "stopped at step 7: x" in Page(build_report(copy)).text
    (cell / "failure.json").write_text('{"message": "x"}')
    with pytest.raises(ValueError, match=r"failure.json: expected an integer 'step'"):
        build_report(copy)


# --- a single run


def test_single_run_makes_a_smaller_page_of_the_same_kind(tmp_path: Path) -> None:
    write_run(tmp_path / "my run", "reg", 3, POWER["reg", 0])
    page = Page(build_report(tmp_path / "my run"))
    assert page.row("arm|")[1:] == ["log spectral distance|dB|", "novel score|", "time|per step|"]
    assert page.row("reg|") == ["reg|", "3.140|", "0.500|", "53.5 ms|"]
    assert "arm: reg" in page.text
    assert "verdict" not in page.text
    assert {path.name for path in (tmp_path / "my run" / "figures").iterdir()} == {
        "samples.png", "spectrum.png", "losses.png",
    }  # fmt: skip


def test_unfinished_single_run_shows_its_losses(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "reg", 0, None)
    page = Page(build_report(tmp_path / "run"))
    assert "run, seed 0 (no results.json; last logged step 120)" in page.text
    assert sum(tag == "img" for tag, _ in page.tags) == 2


# --- what goes wrong


def test_folder_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a comparison folder .* or a run folder"):
        build_report(tmp_path)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def spoil(copy: Path, name: str, content: str) -> Path:
    path = copy / name
    path.write_text(content)
    return path


@pytest.mark.parametrize("name", ["comparison.json", "reg: seed#0 50%/results.json"])
@pytest.mark.parametrize("content", ['{"arms": [', "[1, 2]"])
def test_corrupt_json_names_the_file(copy: Path, name: str, content: str) -> None:
    spoil(copy, name, content)
    with pytest.raises(ValueError, match="JSON") as error:
        build_report(copy)
    assert str(copy / name) in str(error.value)


@pytest.mark.parametrize("line", ['{"step": 20, "ba', "[1]", '{"base": 1.0}', '{"step": 20, "base": "high"}'])
def test_corrupt_log_names_the_file_and_line(copy: Path, line: str) -> None:
    first, _, *rest = log_lines(0).splitlines()
    path = spoil(copy, "none: seed#0 50%/metrics.jsonl", "\n".join([first, line, *rest]) + "\n")
    with pytest.raises(ValueError, match="line 2:") as error:
        build_report(copy)
    assert str(path) in str(error.value)


def test_samples_with_one_axis_are_lines_and_other_forms_are_not_shown(copy: Path) -> None:
    """Two pictures of one wave and its negative: the second is the first upside down."""
    wave = np.sin(np.arange(16) / 2)[None, None]
    for path in copy.glob("*/samples/samples.npy"):
        np.save(path, np.concatenate([wave, -wave]).astype(np.float32))
    np.save(copy / "truth" / "samples.npy", np.zeros((3, 8), np.float32))
    found = pictures.panels(read_files(copy))
    assert [panel.title for panel in found] == ["baseline", NASTY]
    assert found[0].note.startswith("first 2 of seed")
    one, other = np.array_split(found[0].pixels, 2, axis=1)
    inside = np.s_[8:-8, 8:-8]
    assert np.abs(one[inside].astype(int)[::-1].mean((1, 2)) - other[inside].astype(int).mean((1, 2))).max() < 12
    assert one[inside].std() > 5
    assert "Grid of samples, baseline" in build_report(copy).read_text()
    for path in copy.glob("*/samples/samples.npy"):
        np.save(path, np.zeros((2, 3, 4, 5, 6)))
    assert pictures.panels(read_files(copy)) == []
    assert "Grid of samples" not in build_report(copy).read_text()


def test_skipped_optimizer_steps_are_told(copy: Path) -> None:
    path = copy / "none: seed#0 50%" / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"skipped_steps": 7}))
    assert "Optimizer steps skipped because of fp16 overflow: 7 in baseline, seed 0." in build_report(copy).read_text()


def test_spectra_on_different_bands_are_refused(copy: Path) -> None:
    path = copy / "reg: seed#1 50%" / "results.json"
    results = json.loads(path.read_text())
    results["spectrum"] = {"frequency": FREQUENCY[:-1], "power": TRUTH[:-1]}
    path.write_text(json.dumps(results))
    with pytest.raises(ValueError, match=r"seed#1 50%.*5 bands .* 6 bands"):
        build_report(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": None}, "expected 'arms' to be a list"),
        ({"table": [{"arm": "none", "metric": "x"}]}, r"table\[0\] has no field 'mean'"),
        ({"cells": [{"arm": "gone", "seed": 0, "folder": "x"}]}, "cells names the arm 'gone'"),
        ({"metrics": {"x": {"better": "up"}}}, "better must be one of lower, higher, zero, none; got 'up'"),
    ],
)
def test_comparison_with_a_wrong_field_names_it(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        summary_rows(comparison() | change)


def test_report_imports_nothing_of_specreg_but_itself_and_no_torch() -> None:
    for path in Path(figures.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        imported += [a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
        assert not [name for name in imported if name.split(".")[0] == "torch"]
        assert not [
            n for n in imported if n.startswith("specreg") and not n.startswith(("specreg.report", "specreg._files"))
        ]
        top = [n for node in tree.body if isinstance(node, ast.ImportFrom | ast.Import) for n in [ast.unparse(node)]]
        assert not [n for n in top if any(lazy in n for lazy in ("matplotlib", "jinja2", "PIL"))]
