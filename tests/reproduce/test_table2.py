"""Table 2 on a tiny network: the paper's numbers beside ours, no number for what did not run, no cell twice."""

import pytest
from rich.console import Console

from specreg.compare import resolve_arms
from specreg.modalities import parse
from specreg.recipes import RECIPES
from specreg.reproduce import published, table2


@pytest.fixture
def files(tmp_path, save_tiny_sound):
    return save_tiny_sound(tmp_path)


def test_arms_are_the_paper_s():
    arms = resolve_arms(parse(RECIPES["diffwave"]()), table2.ARMS)
    assert list(arms) == list(published.TABLE2) == ["none", *table2.ARMS]
    for name, arm in arms.items():
        if arm is not None:
            assert f"{arm.name}@{arm.weight:.0e}".replace("e-0", "e-") == name
            assert arm.options == {"reduction": "sum"}


def test_paper_s_best_values():
    best = {
        name: min(row.fad for arm, row in published.TABLE2.items() if arm.startswith(name)) for name in table2.LOSSES
    }
    assert best == {"amplitude": 1.462, "amplitude_phase": 1.539, "haar": 1.729, "bior1.3": 1.492}
    assert max(published.TABLE2, key=lambda arm: published.TABLE2[arm].pesq) == "amplitude_phase@1e-4"


def test_table_of_a_tiny_network_goes_on_where_it_stopped(files, tmp_path):
    quick = ["data.held_out=['0', '1']", "training.batch_size=2", "sampling.count=2"]
    config = table2.configure(*files, steps=2, overrides=quick)
    assert config.model.kind == "pretrained"
    assert config.training.steps == 2
    folder, quiet = tmp_path / "out", Console(quiet=True)
    table2.run(config, folder, seeds=1, arms=["haar@1e-4"], console=quiet)
    first = (folder / "none-seed0" / "results.json").stat().st_mtime_ns
    scored = (folder / "untouched" / "seed0.json").stat().st_mtime_ns
    content = table2.run(config, folder, seeds=2, arms=["haar@1e-4"], console=quiet)
    assert (folder / "untouched" / "seed0.json").stat().st_mtime_ns == scored
    assert (folder / "none-seed0" / "results.json").stat().st_mtime_ns == first
    lines = {line[0]: dict(zip(table2.header(content), line, strict=True)) for line in table2.lines(content)}
    assert list(lines) == [table2.UNTOUCHED, "DiffWave", "haar@1e-4"]
    assert lines[table2.UNTOUCHED]["paper's FAD ↓"] == "–"
    assert lines[table2.UNTOUCHED]["seeds"] == "2"
    assert lines["haar@1e-4"]["paper's FAD ↓"] == "1.729"
    assert "FAD ↓" not in lines["DiffWave"]
    assert table2.beside(content)[2][:2] == ["haar@1e-4", "–\npaper 1.729"]
    assert lines["DiffWave"]["seeds"] == "2"
    values = [row["mean"] for row in content["table"] if (row["arm"], row["metric"]) == ("none", "lsd_db")]
    assert lines["DiffWave"]["log-spectral distance ↓"].startswith(f"{values[0]:.2f} ± ")
    elsewhere = {name: value for name, value in content.items() if name != "untouched"}  # as other ranks have it
    assert table2.lines(elsewhere)[1:] == table2.lines(content)[1:]
    text = (folder / "table2.md").read_text()
    assert "Not measured: FAD." in text
    assert text.count("| haar@1e-4 |") == 1


def test_unknown_arm_is_a_sentence(files, tmp_path):
    with pytest.raises(ValueError, match="haar@1"):
        table2.run(table2.configure(*files), tmp_path, arms=["haar@1"], console=Console(quiet=True))
