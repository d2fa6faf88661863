"""The rooms of the house: imports run one way, no two files import each other, and `import specreg` stays light."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import specreg

SOURCE = Path(specreg.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

# What each room may import of specreg, besides itself: docs/architecture.md has the same picture.
LOSS = {
    "_checks",
    "_html",
    "_compile",
    "own_state",
    "spectral_term",
    "transforms",
    "losses",
    "diffusion",
    "auto_weight",
    "ramps",
    "regularizer",
}
TRAINING = LOSS | {
    "_files",
    "_memory",
    "_torch_files",
    "config",
    "objectives",
    "randomness",
    "denoising",
    "calibrated",
    "models",
    "data",
    "metrics",
    "modalities",
}
ALLOWED = {
    "_checks": {"_compile"},
    "_files": set(),
    "_memory": set(),
    "_html": set(),
    "_intervals": set(),
    "_torch_files": {"_files"},
    "_signals": set(),
    "_compile": set(),
    "processes": {"_signals"},
    "randomness": {"_checks"},
    "recipes": set(),
    "report": {"_files"},
    "transforms": {"_checks", "_compile"},
    "diffusion": {"_checks"},
    "losses": {"_checks", "_compile", "transforms", "own_state"},
    "auto_weight": {"_checks", "own_state"},
    "own_state": set(),
    "ramps": {"_checks"},
    "spectral_term": {"_checks", "_html"},
    "watch": set(),
    "integrations": {"", "diffusion", "watch", "losses"},
    "regularizer": LOSS,
    "models": {"_checks", "_files", "_torch_files", "diffusion"},
    "data": {"_checks", "_files", "_memory"},
    "metrics": {"_checks", "_files", "_html", "_intervals", "_torch_files", "transforms"},
    "objectives": {"_checks", "regularizer", "spectral_term", "diffusion"},
    "denoising": {"_checks", "transforms", "diffusion", "objectives"},
    "calibrated": {"_checks", "transforms", "diffusion", "objectives", "denoising"},
    "config": {"_checks", "_files", "losses", "diffusion"},
    "modalities": TRAINING,
    "training": TRAINING | {"_checks", "_signals", "processes"},
    "instruments": {"_checks", "_files", "_intervals", "data", "transforms", "report"},
    "diagnosis": TRAINING | {"training", "evaluation"},
    "scoring": TRAINING | {"processes", "training", "evaluation"},
    "evaluation": {"_files", "_html", "processes", "config", "modalities", "training"},
    "compare": {
        "_files", "_html", "_signals", "processes", "config", "metrics", "modalities", "training", "evaluation",
    },
    "reproduce": {
        "_checks", "_files", "processes", "recipes", "config", "modalities", "training", "evaluation", "compare",
    },
    "cli": {
        "", "_checks", "_files", "_signals", "processes", "recipes", "config", "data", "metrics", "models",
        "modalities", "training", "evaluation", "diagnosis", "scoring", "compare", "reproduce", "report", "instruments",
    },
    "": {"_signals", "losses", "diffusion", "auto_weight", "regularizer", "spectral_term", "watch"},
    "__main__": {"_signals", "cli"},
}  # fmt: skip
LOSS_THIRD_PARTY = {"torch", "numpy", "pywt"}


def module_of(path):
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def room(module):
    return [*module.split("."), ""][1]


def imports(path):
    """Names of the modules that a file imports, anywhere in it; `from a import b` is a.b where that is a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in names)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module):
    here = room(module)
    assert here in ALLOWED, f"{module} is in a room that the picture in docs/architecture.md does not have"
    for name in imports(MODULES[module]):
        if name.split(".")[0] == "specreg":
            assert room(name) == here or room(name) in ALLOWED[here], f"{here} imports {name}"
        elif here in LOSS:
            allowed = LOSS_THIRD_PARTY | ({"numba"} if module.startswith("specreg.losses.kernels") else set())
            allowed |= {"torch_harmonics"} if module == "specreg.transforms.sphere" else set()
            first = name.split(".")[0]
            assert first in allowed or first in sys.stdlib_module_names, f"{here} imports {name}"


def test_no_file_imports_itself_through_others():
    graph = {module: {name for name in imports(path) if name in MODULES} for module, path in MODULES.items()}
    done = set()

    def walk(module, path):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for name in sorted(graph[module]):
                walk(name, [*path, module])
            done.add(module)

    for module in MODULES:
        walk(module, [])


KINDS = re.compile(r"""["'](images|audio|checkerboard|diffwave)["']|\bis_sound\b|modalities\.(images|sound)""")
"""Ways to name a kind of data or its objective in code."""


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) in ("training", "evaluation", "compare", "report")])
def test_the_trainer_and_all_above_it_name_no_kind_of_data(module):
    assert not KINDS.search(MODULES[module].read_text())


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) in ("config", "reproduce", "cli")])
def test_nothing_outside_modalities_imports_one_of_them(module):
    assert not [
        name
        for name in imports(MODULES[module])
        if name.startswith(("specreg.modalities.images", "specreg.modalities.sound"))
    ]


def test_import_loads_nothing_heavy_and_is_quick_beyond_torch():
    code = """
import sys, time
import torch, numpy, pywt
before, began = set(sys.modules), time.process_time()  # of this process: a busy machine makes it no slower
import specreg
seconds = time.process_time() - began
heavy = {"sympy"} - before  # parts of torch 2.4 import it
heavy |= {"accelerate", "matplotlib", "PIL", "scipy", "diffusers", "pydantic", "typer", "rich", "jinja2", "yaml"}
heavy |= {"librosa", "soundfile", "sklearn", "auraloss", "pesq"}
print(seconds, *(heavy & set(sys.modules)))
"""
    seconds, *heavy = min(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(3)
    )
    assert not heavy
    assert float(seconds) < 0.3  # about ten times what it takes on an idle machine


def test_every_public_name_is_there_and_documented():
    for name in specreg.__all__:
        assert getattr(specreg, name) is not None
        assert name == "__version__" or getattr(specreg, name).__doc__
