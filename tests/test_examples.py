"""Examples and the README do what they say."""

import ast
import doctest
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import specreg
import specreg.regularizer

ROOT = Path(__file__).parents[1]
STAND_INS = ROOT / "tests" / "stand_ins"
"""Trainers that are on no index, a folder an example: their signatures, and the loop that calls them."""
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def needed(path):
    """Return the top-level packages that an example imports, itself or by an integration of ours."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    home = Path(specreg.__file__).parent
    ours = {home.joinpath(*name.split(".")[1:]).with_suffix(".py") for name in names if ".integrations." in name}
    inner = {package for file in ours if file.is_file() for package in needed(file)}
    return sorted({name.partition(".")[0] for name in names} | inner)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_examples_run(path):
    folder, given = STAND_INS / path.stem, {}
    if folder.is_dir():
        paths = [folder, STAND_INS, os.environ.get("PYTHONPATH", "")]
        given = {"cwd": folder, "env": {**os.environ, "PYTHONPATH": os.pathsep.join(str(one) for one in paths if one)}}
    for package in [] if given else needed(path):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}, which is not installed")
    shown = subprocess.run([sys.executable, path], capture_output=True, text=True, check=True, **given)
    losses = [float(value) for value in re.findall(r"base loss ([\d.]+)", shown.stdout)]
    assert losses[-1] < losses[0] < 2
    assert len(path.read_text().splitlines()) < 60


def test_readme_snippet_trains():
    """The four lines, in a loop that has what theirs has."""
    (snippet,) = blocks("python")
    x0, noise = torch.randn(2, 4, 3, 16, 16)
    weight = torch.tensor(0.5, requires_grad=True)
    alphas_cumprod = specreg.diffusion.alphas_cumprod("linear").float()
    t = torch.tensor([1, 200, 500, 900])
    x_t = specreg.NoiseLevel.ddpm(alphas_cumprod[t]).diffuse(x0, noise)
    model_output = weight * x_t
    base_loss, target = (model_output - noise).square().mean(), noise
    (plain,) = torch.autograd.grad(base_loss, weight, retain_graph=True)
    exec(snippet, dict(locals()))
    assert weight.grad.isfinite()
    assert weight.grad != plain


def test_readme_commands_are_one_line_each_and_ci_runs_the_tests_one():
    demo, tests = blocks("sh")
    assert demo.strip().endswith("specreg demo")
    assert tests.strip().endswith("pytest")
    assert demo.count("\n") == tests.count("\n") == 1
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


def test_readme_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README) + re.findall(r'src="([^"]+)"', README)
    assert links
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert missing == []


def test_docstring_examples_run():
    for module in (specreg.regularizer,):
        result = doctest.testmod(module)
        assert result.attempted > 0
        assert result.failed == 0
