"""Numbers in the README come from JSON in the repository, by the script that is there."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_readme_s_table_is_the_measured_one():
    path = ROOT / "docs" / "measured" / "summarize.py"
    spec = importlib.util.spec_from_file_location("summarize", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    measured = json.loads((path.parent / "demo.json").read_text())
    assert script.readme_block(measured) in (ROOT / "README.md").read_text()
