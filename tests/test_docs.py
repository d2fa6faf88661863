"""Tables of measurements in the pages come from JSON in the repository, by the script beside it."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MEASURED = sorted((ROOT / "docs" / "measured").glob("*.json"))


@pytest.fixture(scope="module")
def summarize():
    spec = importlib.util.spec_from_file_location("summarize", ROOT / "docs" / "measured" / "summarize.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", MEASURED, ids=lambda path: path.stem)
def test_every_measured_table_stands_in_the_results_as_it_was_measured(path, summarize):
    assert summarize.block(json.loads(path.read_text())) in (ROOT / "docs" / "results.md").read_text()


def test_the_readme_shows_the_demo_as_it_was_measured(summarize):
    measured = json.loads((ROOT / "docs" / "measured" / "demo.json").read_text())
    assert summarize.block(measured) in (ROOT / "README.md").read_text()
