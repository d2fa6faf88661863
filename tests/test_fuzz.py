"""The fuzzers, for a moment: no random damage breaks the rule; found cases are in `bad_inputs`."""

import pytest

pytest.importorskip("resource")

from benchmarks.reliability import fuzz, seeds


@pytest.mark.parametrize(("kind", "most"), [("pickle", 60), ("dataset", 300), ("array", 300), ("config", 25)])
def test_damaged_inputs_are_taken_or_refused(kind, most):
    found = fuzz.fuzz(kind, seed=1, seconds=30, most=most)
    assert found.broken == []
    assert set(found.outcomes) <= {"taken", "refused"}
    assert found.outcomes["refused"] > 0


@pytest.mark.parametrize(("read", "outcome"), [
    (lambda path: path.read_bytes(), "taken"),
    (lambda path: __import__("os").system("true"), "ran os.system"),
    (lambda path: (path.parent / "more").write_text("x"), "ran open"),
    (lambda path: int("x"), "ValueError of a library"),
    (lambda path: {}["x"], "KeyError at"),
])  # fmt: skip
def test_what_breaks_the_rule_is_seen(read, outcome, monkeypatch):
    kind = seeds.Kind(lambda folder: {}, lambda rng, content, others: content, read)
    monkeypatch.setitem(seeds.KINDS, "x", kind._replace(seeds=lambda folder: {"a": b"1"}, read=_from_second(read)))
    found = fuzz.fuzz("x", seed=0, seconds=10, most=1)
    assert next(iter(found.outcomes)).startswith(outcome)


def _from_second(read):
    """The first reading is of the undamaged input."""
    calls = iter([lambda path: None])
    return lambda path: next(calls, read)(path)
