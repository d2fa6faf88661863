"""The documentation site: its build, links, code and the errors that it explains."""

import ast
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import numpy as np
import pytest
import soundfile
import torch
import typer
from typer.testing import CliRunner

import specreg
from specreg.cli.app import app
from specreg.models.diffwave import DiffWave, DiffWaveConfig
from specreg.models.diffwave_checkpoint import save_diffwave

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
# Addresses from which a browser fetches something by itself, by tag; a link that is only followed may lead anywhere.
FETCHED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}
BLOCK = re.compile(r"^```python\n(.*?)^```", flags=re.S | re.M)
CODE = [path for path in PAGES if BLOCK.search(path.read_text())]


class Page(HTMLParser):
    """The anchors of a page, where its links lead, and what a browser fetches for it."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.fetched = {""}, [], []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if given.get(FETCHED.get(tag)):
            self.fetched.append(given[FETCHED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    return {path: Page(path) for path in sorted(folder.rglob("*.html"))}


def test_links_lead_to_pages_and_anchors_that_exist(site):
    broken = []
    for path, page in site.items():
        if path.name == "404.html":  # served under any address, so its links begin at the site's root
            continue
        for link in page.links + page.fetched:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link.startswith("data:"):
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if to.is_dir():
                to /= "index.html"
            if not to.exists() or (to in site and anchor not in site[to].anchors and anchor != "__codelineno-0-1"):
                broken.append(f"{path.name}: {link}")
    assert broken == []


def test_nothing_is_fetched_from_other_hosts(site):
    assets = next(iter(site)).parent.rglob("*.css")
    imported = [
        url for css in assets for url in re.findall(r"(?:url\(|@import )[\"']?(\w+://[^\"')]+)", css.read_text())
    ]
    fetched = [link for page in site.values() for link in page.fetched if urlsplit(link).netloc]
    assert fetched + imported == []
    assert any("iframe-worker" in link for link in next(iter(site.values())).fetched)


def test_every_page_of_docs_is_built(site):
    root = next(iter(site)).parent
    assert {path.relative_to(DOCS).with_suffix(".html") for path in PAGES} <= {path.relative_to(root) for path in site}


def names():
    """Return what the blocks may use: what the text around them says is in scope in a training loop."""
    torch.manual_seed(0)
    x0, noise = torch.randn(2, 4, 3, 16, 16)
    alphas_cumprod = specreg.diffusion.alphas_cumprod("linear").float()
    t = torch.tensor([1, 200, 500, 900])
    level = specreg.NoiseLevel.ddpm(alphas_cumprod[t])
    x_t = level.diffuse(x0, noise)
    convolution = torch.nn.Conv2d(3, 3, 3, padding=1)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = convolution

        def forward(self, x, t, labels=None, augment_labels=None):
            return self.convolution(x)

    network = Network()
    model_output, v = network(x_t, t), specreg.diffusion.target(x0, noise, level, prediction="v")
    base_loss = (model_output - v).square().mean()
    return {
        "specreg": specreg,
        "torch": torch,
        "x0": x0,
        "noise": noise,
        "target": v,
        "alphas_cumprod": alphas_cumprod,
        "t": t,
        "level": level,
        "x_t": x_t,
        "network": network,
        "net": network,
        "images": x0,
        "held_out": torch.randn(16, 3, 16, 16),
        "model_output": model_output,
        "base_loss": base_loss,
        "x0_hat": specreg.recover_x0(model_output, x_t, level, prediction="v"),
        "decoder": torch.nn.ConvTranspose2d(3, 1, 2, stride=2),
        "regularizer": specreg.SpectralRegularizer("amplitude", weight="auto"),
    }


def keep_graph(block):
    """Keep the graph, since several blocks of a page go back through one output."""
    return block.replace(".backward()", ".backward(retain_graph=True)")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """What the blocks read: a small vocoder in the public format, and recordings named as LJSpeech's, one held out."""
    config = DiffWaveConfig(
        residual_layers=2,
        residual_channels=4,
        n_mels=8,
        n_fft=128,
        hop_samples=16,
        sample_rate=8000,
        crop_mel_frames=20,
    )
    save_diffwave(tmp_path / "diffwave.pt", DiffWave(config))
    (tmp_path / "LJSpeech-1.1" / "wavs").mkdir(parents=True)
    names = ["LJ001-0001", *(f"LJ003-{i:04d}" for i in range(16))]
    for name in names:
        clip = np.random.default_rng(0).uniform(-0.5, 0.5, 4000)
        soundfile.write(tmp_path / "LJSpeech-1.1" / "wavs" / f"{name}.wav", clip, 8000)
    (tmp_path / "LJSpeech-1.1" / "metadata.csv").write_text("".join(f"{name}|a|a\n" for name in names))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(DOCS)))
@pytest.mark.filterwarnings("error::UserWarning:specreg")
def test_python_blocks_run_in_order(path, files):
    scope = names()
    blocks = BLOCK.findall(path.read_text())
    for block in blocks:
        line = path.read_text()[: path.read_text().index(block)].count("\n")
        exec(compile("\n" * line + keep_graph(block), str(path), "exec"), scope)
    assert blocks
    if "term" in scope:
        assert scope["term"].loss.isfinite()
        assert scope["term"].loss > 0


def test_examples_on_the_pages_are_the_files_that_the_tests_run():
    included = {name for path in PAGES for name in re.findall(r'--8<-- "(.+?)"', path.read_text())}
    assert included == {f"examples/{path.name}" for path in (ROOT / "examples").glob("*.*")}


@pytest.mark.parametrize("module", sorted({path.stem for path in (ROOT / "src/specreg/integrations").glob("[!_]*.py")}))
def test_every_integration_is_in_the_reference(module):
    assert f"::: specreg.integrations.{module}\n" in (DOCS / "api" / "integrations.md").read_text()


@pytest.mark.parametrize("name", [name for name in specreg.__all__ if name[0] != "_"])
def test_every_public_name_is_in_the_reference(name):
    reference = "".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    home = {
        "losses": "specreg.losses.build",
        "noise_weights": "specreg.diffusion.noise_weight",
        "band_weights": "specreg.diffusion.band_weight",
        "watch": "specreg.watch.watch",  # specreg.watch is the module to a reader of the source
    }
    assert f"::: {home.get(name, f'specreg.{name}')}\n" in reference


def test_references_name_what_exists():
    for path in (DOCS / "api").glob("*.md"):
        for name in re.findall(r"^::: (\S+)", path.read_text(), flags=re.M):
            module, _, last = name.rpartition(".")
            try:
                found = importlib.util.find_spec(name)
            except ModuleNotFoundError:
                found = None
            assert found or hasattr(importlib.import_module(module), last), name


def shape(node):
    """Return the text of a message with … for what is filled in, or None for what is no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    return None


def messages():
    """Return every text in the source, with … for what is filled in."""
    trees = (ast.parse(path.read_text()) for path in (ROOT / "src").rglob("*.py"))
    return {text for tree in trees for node in ast.walk(tree) if (text := shape(node))}


def test_every_error_on_the_page_is_one_that_the_source_raises():
    headings = re.findall(r"^### `(.+)`$", (DOCS / "errors.md").read_text(), flags=re.M)
    listed = [text for heading in headings for text in heading.split("`, `")]
    assert len(listed) > 40
    raised = messages()
    unknown = [
        text
        for text in listed
        if text not in raised
        and not any(re.fullmatch(".*".join(map(re.escape, text.split("…"))), one, flags=re.S) for one in raised)
    ]
    assert unknown == []


def test_every_error_has_a_cause_and_a_remedy():
    for entry in (DOCS / "errors.md").read_text().split("\n### ")[1:]:
        assert "**Cause.**" in entry, entry
        assert "**Remedy.**" in entry, entry


def test_numbers_of_the_first_page_stand_in_the_results():
    """So that no figure stays on the first page after it was measured again."""
    first, results = ((DOCS / name).read_text() for name in ("index.md", "results.md"))
    numbers = set(re.findall(r"(?<![\d.])\d+\.\d+(?![\d.])", re.sub(r"arxiv\S*|\[arXiv [\d.]+\]", "", first)))
    assert len(numbers) > 5
    assert numbers - set(re.findall(r"(?<![\d.])\d+\.\d+(?![\d.])", results)) == set()


def commands():
    """Return the command lines of the pages, each with its words after `specreg`."""
    text = "\n".join(path.read_text() for path in [*PAGES, ROOT / "README.md"])
    blocks = re.findall(r"^```sh-session\n(.*?)^```", text, flags=re.S | re.M)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return sorted({line.removeprefix("$ specreg ") for line in lines if line.startswith("$ specreg ")})


@pytest.mark.parametrize("line", commands())
def test_command_lines_have_the_options_and_settings_that_exist(line):
    name, *words = shlex.split(line)
    with typer.main.get_command(app).commands[name].make_context(name, [*words]) as context:
        given = context.params
    if name in ("train", "compare") and "checkpoint" not in line and "--model" not in line:
        shown = CliRunner().invoke(app, [name, *words, "--dry-run"])
        assert shown.exit_code == 0, shown.output
    assert given


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
@pytest.mark.parametrize("query", ["velocity", "check_wiring", "differentiable once"])
def test_search_answers_from_the_file_system(site, query):
    address = f"{(next(iter(site)).parent / 'index.html').as_uri()}?q={quote(query)}"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
    shown = subprocess.run(["chromium", *options, address], capture_output=True, text=True, timeout=120)
    found = re.search(r'md-search-result__meta">(\d+) matching', shown.stdout)
    assert found, shown.stderr[-500:]
    assert int(found[1]) > 0
