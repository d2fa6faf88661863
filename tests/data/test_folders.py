"""Listing of folder trees with links, beside what `find -L` prints."""

import os
import subprocess

import pytest

from specreg.data.folders import list_files


@pytest.fixture
def tree(tmp_path):
    """A folder with a file and links to: a folder outside, a folder inside, its own parent, a file, nothing."""
    (tmp_path / "outside" / "deep").mkdir(parents=True)
    (tmp_path / "outside" / "deep" / "o.png").write_bytes(b"")
    root = tmp_path / "root"
    (root / "z").mkdir(parents=True)
    (root / "z" / "i.png").write_bytes(b"")
    (root / "a.png").write_bytes(b"")
    (root / "file.png").symlink_to(tmp_path / "outside" / "deep" / "o.png")
    (root / "linked").symlink_to(tmp_path / "outside", target_is_directory=True)
    return root


def test_links_to_folders_are_followed_as_find_does(tree):
    found = subprocess.run(["find", "-L", ".", "-type", "f"], cwd=tree, capture_output=True, text=True, check=True)
    expected = sorted(line.removeprefix("./") for line in found.stdout.splitlines())
    assert list_files(tree) == expected == ["a.png", "file.png", "linked/deep/o.png", "z/i.png"]


def test_each_folder_is_listed_once_under_its_own_name_and_loops_end(tree):
    before = list_files(tree)
    (tree / "again").symlink_to(tree / "z", target_is_directory=True)  # sorts before z, but z is the folder itself
    (tree / "z" / "up").symlink_to(tree, target_is_directory=True)
    assert list_files(tree) == before
    (tree.parent / "outside" / "back").symlink_to(tree.parent, target_is_directory=True)
    assert list_files(tree) == before


def test_links_to_nothing_are_listed_or_warned_about(tree):
    (tree / "gone.png").symlink_to(tree / "none.png")
    (tree / "drive").symlink_to("/not/mounted", target_is_directory=True)
    with pytest.warns(UserWarning, match="drive is left out: it leads to /not/mounted, which is not there"):
        assert "gone.png" in list_files(tree)


def test_a_folder_that_cannot_be_read_is_an_error(tree, monkeypatch):
    scandir = os.scandir

    def locked(path):
        if os.path.basename(path) == "deep":
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)  # the superuser may read everything
    with pytest.raises(PermissionError, match="linked/deep"):
        list_files(tree)
