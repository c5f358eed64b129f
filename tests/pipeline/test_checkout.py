"""A clone has the bytes of the original, whatever git is told about line endings."""

import subprocess
from pathlib import Path

import pytest

from tests.support.tiny_repository import call


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Attributes that a user has for all repositories."""
    path = tmp_path_factory.mktemp("git") / "attributes"
    path.write_text("* text=auto eol=crlf\n")
    return path


@pytest.mark.parametrize(
    "options",
    [
        ["core.autocrlf=true"],
        ["core.autocrlf=input"],
        ["core.eol=crlf", "core.autocrlf=true"],
        ["core.attributesFile=SETTINGS", "core.eol=crlf"],
    ],
)
def test_no_setting_of_git_changes_a_byte_of_a_checkout(fresh, tmp_path, settings, options):
    words = [word for option in options for word in ("-c", option.replace("SETTINGS", str(settings)))]
    call(tmp_path, "git", "clone", "-q", *words, str(fresh), "clone")
    for name in filter(None, call(fresh, "git", "ls-files", "-z").split("\0")):
        content = subprocess.check_output(["git", "show", f"HEAD:{name}"], cwd=fresh)
        assert (tmp_path / "clone" / name).read_bytes() == content, name
    assert call(tmp_path / "clone", "git", "status", "--short") == ""
