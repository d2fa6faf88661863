"""The tables of the README and the pages are written from the numbers in the repository."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from scipy import stats

ROOT = Path(__file__).parents[1]
MEASURED = sorted((ROOT / "docs" / "measured").glob("*.json"))
PAGES = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))


def test_the_tables_of_the_pages_are_those_of_the_numbers():
    command = [sys.executable, "docs/measured/write.py", "--check"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (shown.returncode, shown.stdout.strip()) == (0, "other than measured: none"), shown.stderr


def test_a_table_by_arms_has_the_numbers_of_the_table_by_differences(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "measured"))
    summarize = importlib.import_module("summarize")
    measured = json.loads((ROOT / "docs" / "measured" / "demo.json").read_text(encoding="utf-8"))
    row = next(r for r in measured["table"] if r["metric"] == "log_spectral_distance_db" and r["difference"])
    half = (row["difference"]["high"] - row["difference"]["low"]) / 2
    cell = f"{row['mean']:.2f} ({row['difference']['mean']:+.2f} ± {half:.2f})".replace("-", "−")
    assert cell in summarize.wide(measured).splitlines()[2]


def test_every_file_of_numbers_has_a_table_on_a_page():
    named = set(re.findall(r"<!-- measured: \w+ ([\w.-]+)", PAGES))
    assert named == {path.stem for path in MEASURED} - {"said"}


def test_the_readme_shows_the_demo_as_it_was_measured():
    assert "<!-- measured: comparison demo -->" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_decibel_of_the_readme_is_filled_in_from_the_numbers(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "measured"))
    said = importlib.import_module("said")
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    prose = re.sub(r"<!-- measured: .*?<!-- end -->|<img .*?>|```.*?```", "", text)
    for sentence in json.loads((ROOT / "docs" / "measured" / "said.json").read_text(encoding="utf-8"))["README.md"]:
        prose = prose.replace(said.filled(sentence), "")
    others = ["1.6 to 3", "0.003 to 0"]  # read off the second figure; of networks.json
    assert re.findall(r"[^ ]*\d[.]\d[^ ]* (?:dB|→|to \d)", prose) == others


def test_a_sentence_takes_its_numbers_from_a_study(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "measured"))
    said = importlib.import_module("said")
    study = json.loads((ROOT / "docs" / "measured" / "curves-tiles-long.json").read_text(encoding="utf-8"))
    ours, theirs = (study["values"]["6400"][arm]["denoising_error_db"] for arm in ("amplitude@auto:2", "none"))
    differences = np.subtract(ours, theirs)
    half = stats.t.ppf(0.975, 2) * np.std(differences, ddof=1) / np.sqrt(3)
    expected = f"{np.mean(theirs):.2f} → {np.mean(ours):.2f}, {np.mean(differences):+.3f} ± {half:.3f}"
    at = "curves-tiles-long 6400 den amplitude@auto:2"
    assert said.filled(f"{{{at} ->.2}}, {{{at} +-}}") == expected.replace("-", "−")
    assert said.filled(f"{{{at} %}}") == f"{100 * np.mean(ours) / np.mean(theirs) - 100:.0f}%"
    assert said.filled(f"{{{at} by.2}}, {{{at} abs.1}}") == f"{abs(np.mean(differences)):.2f}, {abs(np.mean(ours)):.1f}"


def test_every_figure_of_the_pages_is_there_and_used():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    used = {name.rpartition("/")[2] for name in re.findall(r"[\w./-]*figures/[\w./-]+", text)}
    assert used == {path.name for path in (ROOT / "docs" / "figures").iterdir()}
