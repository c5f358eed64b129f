"""Copies on a share that lets nobody set permissions and times, as CIFS mounts do."""

import os

import pytest

from ddpm.runtime.copies import copy_files


@pytest.fixture(autouse=True)
def share(monkeypatch):
    def refuse(path, *_, **__):
        raise PermissionError(1, "Operation not permitted", path)

    for name in ("chmod", "fchmod", "utime"):
        monkeypatch.setattr(os, name, refuse)


def test_a_file_and_a_folder_are_copied_as_they_are(tmp_path):
    (tmp_path / "model/deep/empty").mkdir(parents=True)
    (tmp_path / "model/a.json").write_bytes(b"new")
    (tmp_path / "model/deep/b.bin").write_bytes(bytes(range(256)))
    (tmp_path / "there").mkdir()
    (tmp_path / "there/a.json").write_bytes(b"old and longer")
    copy_files(tmp_path / "model", tmp_path / "there")
    assert (tmp_path / "there/a.json").read_bytes() == b"new"
    assert (tmp_path / "there/deep/b.bin").read_bytes() == bytes(range(256))
    copy_files(tmp_path / "model/a.json", tmp_path / "1/a.json")
    assert (tmp_path / "1/a.json").read_bytes() == b"new"
