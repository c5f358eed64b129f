"""A real tracking server for the tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.support.tracking_server import Line, serving


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    with serving(tmp_path_factory.mktemp("server")) as line:
        yield line
