"""SECURITY.md by reading the source: no call that runs what is loaded, none that reaches the network."""

import ast
import re
import sys
from pathlib import Path

import pytest

import specreg

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

SOURCE = Path(specreg.__file__).parent
ROOT = Path(__file__).parents[1]
NETWORK = {"aiohttp", "ftplib", "http", "httpx", "huggingface_hub", "requests", "smtplib", "socket", "urllib.request"}
RUNNING = {"eval", "exec", "compile", "os.system", "os.popen", "pickle.load", "pickle.loads", "yaml.unsafe_load"}
ASKS = {  # calls that are safe with one argument only
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    "from_pretrained": ("local_files_only", True),
    "load_config": ("local_files_only", True),
    "hub.load": ("source", "local"),
}


def faults(source):
    """Return what a module has of imports and calls that SECURITY.md rules out."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(f"{node.module}.{name}" for name in names)]
            if named := {"subprocess", "multiprocessing.managers", *NETWORK} & {
                *names,
                *(n.split(".")[0] for n in names),
            }:
                yield f"{node.lineno}: imports {min(named)}"
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in RUNNING:
                yield f"{node.lineno}: calls {name}"
            wanted = next((ask for call, ask in ASKS.items() if name == call or name.endswith(f".{call}")), None)
            given = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
            if wanted and given.get(wanted[0]) is not wanted[1] and given.get(wanted[0]) != wanted[1]:
                yield f"{node.lineno}: calls {name} without {wanted[0]}={wanted[1]}"


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_module_runs_what_it_loads_or_reaches_the_network(path):
    assert list(faults(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(("source", "words"), [
    ("import requests", "imports requests"),
    ("from urllib.request import urlopen", "imports urllib.request"),
    ("import subprocess", "imports subprocess"),
    ("pickle.loads(data)", "calls pickle.loads"),
    ("torch.load(path)", "torch.load without weights_only=True"),
    ("torch.load(path, weights_only=False)", "torch.load without weights_only=True"),
    ("np.load(path, allow_pickle=True)", "np.load without allow_pickle=False"),
    ("Model.from_pretrained(path)", "from_pretrained without local_files_only=True"),
    ("eval(text)", "calls eval"),
])  # fmt: skip
def test_what_is_ruled_out_is_seen(source, words):
    assert words in next(faults(source))


def test_dependencies_have_lower_bounds_and_no_address():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"].values()
    wanted = [line for lines in (project["dependencies"], *extras) for line in lines]
    unbounded = [line for line in wanted if not line.startswith("specreg[") and ">=" not in line]
    assert unbounded == []
    assert not re.search(r"@\s*(https?|git\+|file:)|index[-_]url|://", text)
