"""Bad inputs: one sentence (where, expected, got), exit code 2, nothing written, within 10 s."""

import re

import pytest

from bad_inputs import checkpoints, datasets, files, options
from bad_inputs.case import SECONDS, Case, listed, run

CASES = [*options.CASES, *files.CASES, *datasets.CASES, *checkpoints.CASES]


def check(case: Case, folder) -> None:
    """Run a case in an empty folder and assert the rule."""
    arguments = case.make(folder)
    before = listed(folder)
    shown = run(arguments)
    assert shown.code == 2, (shown.code, shown.out[-500:], shown.err[-1500:])
    assert re.search(case.words, shown.err), shown.err[:1500]
    assert len(shown.err) < 4000, len(shown.err)
    assert "Traceback" not in shown.err
    assert " object at 0x" not in shown.err
    assert shown.out == ""
    assert listed(folder) == before
    assert shown.seconds < SECONDS


@pytest.mark.parametrize("case", CASES, ids=[f"{number} {case.name}" for number, case in enumerate(CASES)])
def test_the_rule_holds(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(case, tmp_path)
