"""Temporary files, copies, links, modes of what it made itself."""

import os
import pathlib
import shutil
import tempfile


def test_temporary(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    shutil.copy(tmp_path / "a.txt", tmp_path / "b.txt")
    shutil.copytree(tmp_path, tmp_path / "c")
    assert (tmp_path / "c" / "b.txt").read_text() == "a"


def test_workspace():
    with tempfile.TemporaryDirectory() as directory, tempfile.NamedTemporaryFile() as file:
        os.symlink(file.name, os.path.join(directory, "link"))
        file.write(b"x")
    pathlib.Path("here.txt").write_text("x")
    os.rename("here.txt", "there.txt")
    assert pathlib.Path.home().is_dir()
