"""The command as a user types it: exit codes, one sentence an error, files where they are said to be."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import reference_pickle
from specreg import __version__
from specreg.config import dump

COMMANDS = [
    "demo",
    "train",
    "compare",
    "sample",
    "diagnose",
    "evaluate",
    "report",
    "dataset",
    "convert",
    "reproduce",
    "recipes",
]
TINY = [
    "data.resolution=16", "data.squares=[2,4]", "data.count=20", "model.width=8", "model.attention=[1]",
    "diffusion.timesteps=50", "training.steps=4", "training.batch_size=4", "training.log_every=1",
    "sampling.count=4", "sampling.steps=2",
]  # fmt: skip


def specreg(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "specreg", *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_version_and_help():
    assert specreg("--version").stdout.strip() == f"specreg {__version__}"
    shown = specreg("--help")
    assert shown.returncode == 0
    assert all(command in shown.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    shown = specreg(command, "--help")
    assert shown.returncode == 0
    assert "Example" in shown.stdout
    assert f"specreg {command}" in shown.stdout


def test_recipes_are_listed():
    shown = specreg("recipes").stdout
    assert "checkerboard" in shown
    assert "textures" in shown


def test_dry_run_prints_a_config_that_can_be_run(tmp_path):
    shown = specreg("compare", "checkerboard", "training.steps=7", "--arms", "haar@0.3", "--dry-run")
    assert shown.returncode == 0
    (tmp_path / "config.yaml").write_text(shown.stdout)
    again = specreg("compare", tmp_path / "config.yaml", "--dry-run")
    assert again.stdout == shown.stdout
    assert "steps: 7" in shown.stdout
    assert list(tmp_path.iterdir()) == [tmp_path / "config.yaml"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "checkerbord"], "a recipe (`specreg recipes` lists them) or a .yaml file; got 'checkerbord'"),
        (["train", "none.yaml"], "none.yaml: cannot be read: No such file or directory"),
        (["train", "checkerboard", "training.stps=3"], "no such key 'training.stps' (did you mean 'steps'?)"),
        (["train", "textures"], "data.path: expected a folder, zip or array of images"),
        (["train", "textures", "data.path=nowhere"], "nowhere"),
        (["compare", "checkerboard", "--arms", "harr"], "did you mean 'haar'?"),
        (["sample", "nowhere"], "nowhere: expected a run folder with a config.yaml"),
        (["report", "nowhere"], "nowhere"),
        (["dataset", "nowhere", "out.zip"], "nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, words, tmp_path):
    shown = specreg(*arguments, cwd=tmp_path)
    assert shown.returncode == 2
    assert words in re.sub(r"\s+", " ", shown.stderr)
    assert "Traceback" not in shown.stderr
    assert not list(tmp_path.rglob("*.partial"))


def test_missing_option_value_is_exit_code_2():
    assert specreg("compare", "checkerboard", "--seeds", "0").returncode == 2


def test_train_sample_report(tmp_path):
    shown = specreg("train", "checkerboard", *TINY, "name=run", "training.lr=0.05", "title=A [bold] run", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "A [bold] run" in shown.stdout
    run = tmp_path / "runs" / "run"
    assert "log-spectral distance" in shown.stdout
    assert "report: runs/run/report.html" in shown.stdout
    assert (run / "report.html").exists()
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 4

    assert "specreg train checkerboard" in (run / "report.html").read_text()

    shown = specreg("sample", "runs/run", "--count", "3", "--seed", "1", "--out", "png", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert sorted(p.name for p in (tmp_path / "png").glob("*.png")) == ["000001.png", "000002.png", "000003.png"]
    ours = np.asarray(Image.open(tmp_path / "png" / "000001.png")).astype(int)
    trained = np.load(run / "samples" / "samples.npy")[:, :, :, 0].astype(int)
    assert np.abs(ours - trained[1]).max() <= 1  # seed 1 is sample 1, up to 8-bit rounding of batched arithmetic
    assert np.abs(ours - trained[2]).max() > 8

    # A rule of scoring: a kernel distance needs two samples, drawing does not.
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("kernel_distance: false", "kernel_distance: true"))
    assert "kernel_distance: true" in config.read_text()
    shown = specreg("sample", "runs/run", "--count", "1", "--out", "one", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert [p.name for p in (tmp_path / "one").glob("*.png")] == ["000000.png"]
    config.write_text(config.read_text().replace("kernel_distance: true", "kernel_distance: false"))
    shown = specreg("train", "checkerboard", *TINY, "name=scored", "metrics.kernel_distance=true", "sampling.count=1",
                    cwd=tmp_path)  # fmt: skip
    assert shown.returncode == 2
    assert "sampling.count must be at least 2 with metrics.kernel_distance; got 1" in shown.stderr
    assert not (tmp_path / "runs" / "scored" / "metrics.jsonl").exists()

    (run / "report.html").unlink()
    assert specreg("report", "runs/run", cwd=tmp_path).returncode == 0
    assert (run / "report.html").exists()

    shown = specreg("train", "checkerboard", *TINY, "name=run", "training.lr=1", cwd=tmp_path)
    assert shown.returncode == 2
    assert "this folder holds a run with training.lr" in shown.stderr
    shown = specreg("compare", "checkerboard", *TINY, "name=run", cwd=tmp_path)
    assert shown.returncode == 2
    assert "runs/run: holds a single run; choose another name" in shown.stderr


def test_demo_compares_and_says_where_the_report_is(tmp_path):
    shown = specreg("demo", *TINY, "--seeds", "2", "--jobs", "1", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "runs/demo/report.html" in shown.stdout
    content = json.loads((tmp_path / "runs" / "demo" / "comparison.json").read_text())
    assert content["arms"][0]["name"] == content["baseline"] == "none"
    assert len(content["cells"]) == 6
    assert set(content["step_seconds"]) == {arm["name"] for arm in content["arms"]} - {"calibrated"}
    assert content["command"].startswith("specreg demo data.resolution=16")


def test_dataset_then_train_on_it_in_colour(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(12):
        pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    (tmp_path / "photos" / "torn.png").write_bytes(b"no image")
    (tmp_path / "photos" / "phone.heic").write_bytes(b"")
    raw = specreg("train", "textures", "data.path=photos", "data.resolution=16", cwd=tmp_path)
    assert raw.returncode == 2
    assert "`specreg dataset SRC OUT.zip` makes pictures of one size" in " ".join(raw.stderr.split())
    shown = specreg("dataset", "photos", "crops.zip", "--resolution", "16", "--mode", "tiles", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "torn.png (its content is none of PNG, JPEG" in shown.stdout
    assert "phone.heic (.heic is not read; convert it to PNG or JPEG)" in shown.stdout
    assert (tmp_path / "crops-test.zip").exists()
    shown = specreg(
        "compare", "textures", "data.path=crops.zip", "data.test_path=crops-test.zip", "--arms", "haar",
        *(o for o in TINY if not o.startswith(("data.sq", "data.co"))), cwd=tmp_path,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    samples = np.load(tmp_path / "runs" / "textures" / "none-seed0" / "samples" / "samples.npy")
    assert samples.shape == (4, 16, 16, 3)


def test_yaml_file_is_a_recipe(tmp_path, tiny):
    (tmp_path / "mine.yaml").write_text(dump(tiny()))
    assert specreg("train", "mine.yaml", "name=from-file", cwd=tmp_path).returncode == 0
    assert (tmp_path / "runs" / "from-file" / "results.json").exists()


def test_convert_reads_a_checkpoint_without_running_it(tmp_path):
    made = specreg("convert", reference_pickle.write_tiny(tmp_path / "x.pkl"), tmp_path / "x.safetensors")
    assert made.returncode == 0, made.stderr
    assert "songunet under edm preconditioning" in made.stdout
    again = specreg("convert", tmp_path / "x.safetensors", tmp_path / "x.pt")
    assert again.returncode == 0, again.stderr
    (tmp_path / "evil.pkl").write_bytes(b"cos\nsystem\n(Vtouch canary\ntR.")
    refused = specreg("convert", tmp_path / "evil.pkl", tmp_path / "y.pt", cwd=tmp_path)
    assert refused.returncode == 2
    assert "os.system" in refused.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.pkl", "x.pkl", "x.pt", "x.safetensors"]


def test_report_of_sets_of_samples(tmp_path):
    """White noise beside itself, and at half its amplitude: −6 dB everywhere, with an interval that holds it."""
    noise = np.random.default_rng(0).standard_normal((3, 40, 1, 16, 16)).astype(np.float32)
    for name, x in (("real", noise[0]), ("same", noise[1]), ("faint", noise[2] / 2)):
        np.save(tmp_path / f"{name}.npy", x)
    alone = specreg("report", "faint.npy", cwd=tmp_path)
    assert alone.returncode == 2
    assert "--reference" in alone.stderr
    assert "no such path" in specreg("report", "real.npy", "gone.npy", cwd=tmp_path).stderr
    shown = specreg("report", "real.npy", "same.npy", "faint.npy", cwd=tmp_path)
    assert shown.stdout.split() == ["report:", "report.html"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    table = re.findall(
        r'data-label="energy between half Nyquist and Nyquist → 0, dB">([+−]?[\d.]+)<small>\[(.*?) … (.*?)\]', page
    )
    (_, low, high), (_, lower, higher) = ([float(x.replace("−", "-")) for x in row] for row in table)
    assert low < 0 < high
    assert lower < 20 * np.log10(0.5) < higher
    again = specreg("report", "faint.npy", "--reference", "real.npy", "--to", "second.html", cwd=tmp_path)
    assert again.returncode == 0
    assert "faint.npy" in (tmp_path / "second.html").read_text(encoding="utf-8")
