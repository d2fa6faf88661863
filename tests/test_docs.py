"""The tables of the README and the pages are written from the numbers in the repository."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

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
    assert named == {path.stem for path in MEASURED}


def test_the_readme_shows_the_demo_as_it_was_measured():
    assert "<!-- measured: comparison demo -->" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_figure_of_the_pages_is_there_and_used():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    used = {name.rpartition("/")[2] for name in re.findall(r"[\w./-]*figures/[\w./-]+", text)}
    assert used == {path.name for path in (ROOT / "docs" / "figures").iterdir()}
