"""The notebooks run at tiny settings, show what they should, and are committed without outputs."""

import ast
import json
import re
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("accelerate")

FOLDER = Path(__file__).parents[1] / "examples" / "notebooks"
TINY = {
    "is_my_models_spectrum_wrong": {"COUNT": 64, "SIDE": 32, "REPLICATES": 100},
    "train_and_compare": {"STEPS": 2, "SEEDS": 2, "SAMPLES": 8, "JOBS": 1},
}


def cells(name, kind="code"):
    content = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == kind]


def run(name, tmp_path, monkeypatch):
    """Execute the code cells as Jupyter does, with tiny parameters; return names and HTML of last values."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names, shown = {"__name__": "__main__"}, []
    for number, cell in enumerate(cells(name)):
        tree = ast.parse("".join(cell["source"]), filename=f"{name}, code cell {number}")
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"{name}, code cell {number}", "exec"), names)
        if cell["metadata"].get("tags") == ["parameters"]:
            assert TINY[name].keys() == {n.id for line in tree.body for n in line.targets}
            names |= TINY[name]
        if last is not None:
            value = eval(compile(ast.Expression(last.value), f"{name}, code cell {number}", "eval"), names)
            if hasattr(value, "_repr_html_"):
                shown.append(value._repr_html_())
    return names, shown


def test_notebooks_are_committed_without_outputs():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == TINY.keys()
    for name in TINY:
        assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells(name))
        for cell in cells(name, "markdown"):
            for link in re.findall(r"\]\(([^)#]+)", "".join(cell["source"])):
                assert (FOLDER / link).exists()


def test_is_my_models_spectrum_wrong(tmp_path, monkeypatch, capsys):
    names, (shown,) = run("is_my_models_spectrum_wrong", tmp_path, monkeypatch)
    # Along an axis the blur passes 0.76 + 0.24·cos(2πf), at Nyquist 0.52: the last band lacks some decibels.
    last = names["found"].difference.bands[-1]
    assert -9 < last.ratio_db.value < -2
    assert "lacks" in capsys.readouterr().out
    assert "data:image/svg+xml" in shown
    assert names["page"].read_text(encoding="utf-8").startswith("<!doctype html>")


def test_train_and_compare(tmp_path, monkeypatch, capsys):
    names, (summary, pictures, term) = run("train_and_compare", tmp_path, monkeypatch)
    assert "amplitude+haar" in summary
    assert "±" in summary
    assert pictures.count("data:image/png") == 4
    assert pictures.count("data:image/svg+xml") == 2
    assert "Spectral term of 8 samples" in term
    assert (names["folder"] / "report.html").exists()
    said = capsys.readouterr().out
    rows = {(row["arm"], row["metric"]): row for row in names["summary"]["table"]}
    against, calibrated = said.partition("against MSE alone, calibrated")[::2]
    for key, about in names["summary"]["metrics"].items():
        row = rows["amplitude+haar", key]
        low, high = (f"{row['difference'][end]:+.{about['digits']}f}" for end in ("low", "high"))
        line = next(line for line in against.splitlines() if line.startswith(f"  {about['label']}: "))
        assert f"[{low} … {high}]" in line
        assert row["verdict"] in line
        assert (", the interval contains 0" in line) == (row["difference"]["low"] <= 0 <= row["difference"]["high"])
        assert f"  {about['label']}: " in calibrated

    # With other values in place of the runs' own, the last lines say what their intervals say.
    code = next(c for c in map("".join, (c["source"] for c in cells("train_and_compare"))) if "def judge" in c)
    for change, noise, said in ((-1, 0.01, "better"), (1, 0.01, "worse"), (0, 1, "no difference seen")):
        for seed in range(2):
            for arm in ("none", "calibrated", "amplitude+haar"):
                moved = (change + noise * (-1) ** seed) * (arm == "amplitude+haar")
                path = names["folder"] / f"{arm}-seed{seed}" / "results.json"
                metrics = dict.fromkeys(names["summary"]["metrics"], 5.0 + moved)
                path.write_text(json.dumps({"metrics": metrics}), encoding="utf-8")
        exec(code, names)
        shown = capsys.readouterr().out
        assert (", the interval contains 0" in shown) == (said == "no difference seen")
        for word in ("better", "worse", "no difference seen"):
            line = next(x for x in shown.splitlines() if x.startswith(f"Against MSE alone, {word}"))
            assert line.endswith(": nothing.") == (word != said)
