"""The rooms of the house: imports run one way, and `import specreg` stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import specreg

SOURCE = Path(specreg.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))

# What each room may import of specreg, besides itself.
CORE = {"_checks", "_compile", "transforms", "losses", "diffusion", "auto_weight", "regularizer"}
ALLOWED = {
    "_checks": set(),
    "_files": set(),
    "_compile": set(),
    "_numba": set(),
    "transforms": {"_checks", "_compile"},
    "diffusion": {"_checks"},
    "models": {"_checks", "diffusion"},
    "data": {"_checks"},
    "losses": {"_checks", "_compile", "_numba", "transforms"},
    "metrics": {"_checks", "transforms"},
    "auto_weight": set(),
    "regularizer": {"_checks", "transforms", "losses", "diffusion", "auto_weight"},
    "objectives": {"_checks", "regularizer", "diffusion"},
    "objectives_audio": {"objectives", "regularizer", "diffusion"},
    "training": CORE | {"_files", "objectives", "objectives_audio", "models", "data"},
    "recipes": set(),
    "report": set(),
    "denoising": {"_checks", "transforms", "diffusion", "objectives"},
    "evaluation_audio": {"training", "diffusion", "models", "data", "metrics"},
    "evaluation_images": {"training", "data", "metrics"},
    "evaluation": {
        "_checks",
        "_files",
        "denoising",
        "training",
        "diffusion",
        "models",
        "data",
        "metrics",
        "evaluation_audio",
        "evaluation_images",
    },
    "compare": {
        "_checks",
        "_files",
        "training",
        "diffusion",
        "models",
        "data",
        "metrics",
        "evaluation",
        "evaluation_audio",
        "evaluation_images",
    },
    "reproduce": {
        "_checks",
        "_files",
        "recipes",
        "training",
        "diffusion",
        "models",
        "data",
        "metrics",
        "evaluation",
        "evaluation_audio",
        "compare",
    },
    "__init__": {"losses", "diffusion", "auto_weight", "regularizer"},
    "__main__": {"cli"},
}
CORE_THIRD_PARTY = {"torch", "numpy", "pywt"}
KERNELS = {"losses/fourier_loops.py", "losses/haar_kernels.py"}  # imported where Numba is


def room(path):
    relative = path.relative_to(SOURCE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(path):
    """Names of the modules that a file imports, anywhere in it; `from specreg import x` counts as specreg.x."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module == "specreg":
                yield from (f"specreg.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_run_one_way(path):
    here = room(path)
    if here in ("cli", "commands"):
        return
    assert here in ALLOWED, f"{path} is in a room that the picture in docs/architecture.md does not have"
    for name in imports(path):
        first, *rest = name.split(".")
        if first == "specreg" and rest:
            assert rest[0] == here or rest[0] in ALLOWED[here], f"{here} imports {name}"
        elif here in CORE:
            allowed = CORE_THIRD_PARTY | ({"numba"} if path.relative_to(SOURCE).as_posix() in KERNELS else set())
            assert first in allowed or first in sys.stdlib_module_names, f"{here} imports {name}"


def test_import_loads_nothing_heavy_and_is_quick_beyond_torch():
    code = """
import sys, time
import torch, numpy, pywt
began = time.perf_counter()
import specreg
seconds = time.perf_counter() - began
heavy = {"accelerate", "matplotlib", "PIL", "scipy", "diffusers", "pydantic", "typer", "rich", "jinja2", "yaml"}
heavy |= {"librosa", "soundfile", "sklearn", "auraloss", "pesq"}
print(seconds, *(heavy & set(sys.modules)))
"""
    seconds, *heavy = min(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(3)
    )
    assert not heavy
    assert float(seconds) < 0.3  # the bar, about ten times what it takes here


def test_every_public_name_is_there_and_documented():
    for name in specreg.__all__:
        assert getattr(specreg, name) is not None
        assert name == "__version__" or getattr(specreg, name).__doc__
