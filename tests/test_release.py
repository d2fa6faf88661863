"""The wheel and the source archive: what they hold, and that building them again gives the same bytes."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import specreg

ROOT = Path(__file__).parents[1]
SHIPPED = {"src", "tests", "benchmarks", "examples", "docs", ".ci"}
ALONE = {
    "mkdocs.yml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "pyproject.toml",
}


def sources():
    """Return the files of the repository, as far as git does not ignore them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git repository")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def build(folder, modified, mode):
    """Build from a copy whose files have other times and permissions; return (wheel, source archive)."""
    for name in sources():
        copy = folder / "tree" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy)
        copy.chmod(mode)
        os.utime(copy, (modified, modified))
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder / "dist")],
        cwd=folder / "tree",
        env={**os.environ, "SOURCE_DATE_EPOCH": "1767225600"},
        check=True,
        capture_output=True,
    )
    (wheel,) = (folder / "dist").glob("*.whl")
    (archive,) = (folder / "dist").glob("*.tar.gz")
    return wheel, archive


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("first"), 1_600_000_000, 0o644)


def test_the_wheel_holds_the_package_and_its_metadata_alone(built):
    names = set(zipfile.ZipFile(built[0]).namelist())
    info = f"specreg-{specreg.__version__}.dist-info"
    package = {name.removeprefix("src/") for name in sources() if name.startswith("src/")}
    about = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    assert names == package | {f"{info}/{name}" for name in about}
    assert {"specreg/py.typed", "specreg/report/report.html", "specreg/report/style.css"} <= names


def test_the_source_archive_holds_what_git_does_and_nothing_else(built):
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {name for name in sources() if name.split("/")[0] in SHIPPED or name in ALONE}
    assert names == wanted | {"PKG-INFO", ".gitignore"}


def test_building_again_elsewhere_gives_the_same_bytes(built, tmp_path):
    again = build(tmp_path, 1_700_000_000, 0o600)
    assert [path.name for path in again] == [path.name for path in built]
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in built]


def test_the_version_stands_once(built):
    with zipfile.ZipFile(built[0]) as wheel:
        metadata = Parser().parsestr(wheel.read(f"specreg-{specreg.__version__}.dist-info/METADATA").decode())
    assert metadata["Version"] == specreg.__version__
    places = [
        name
        for name in sources()
        if re.fullmatch(r"(src/.*\.py|pyproject\.toml|CITATION\.cff|mkdocs\.yml)", name)
        and re.search(
            rf"(?<![v\d.]){re.escape(specreg.__version__)}", (ROOT / name).read_text()
        )  # not another's v0.2.0
    ]
    assert places == ["src/specreg/__init__.py"]
