"""Downloads that are interrupted, doubled or led astray; the sentences are in tests/support/cases/network.py."""

import hashlib
import subprocess
import sys
import threading
import time

import pytest

from ddpm.data import downloads
from ddpm.data.downloads import Remote, ensure
from ddpm.runtime.errors import InputError
from tests.support import ROOT
from tests.support.cases.server import answer, cut, serve, whole
from tests.support.tiny_repository import wait_for

CONTENT = hashlib.shake_256(b"flower").digest(3000)


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    root = tmp_path / "repository"
    (root / ".dvc").mkdir(parents=True)
    monkeypatch.chdir(root)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return root / "data" / "downloads"


def remote(*addresses, content=CONTENT):
    urls = tuple(f"{address}file" for address in addresses)
    return Remote("file", urls, "sha256", hashlib.sha256(content).hexdigest())


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_line_may_be_cut_at_any_byte(store):
    for place in range(1, len(CONTENT), 97):
        with serve(cut(CONTENT, place)) as address:
            ensure([remote(address)])
        assert (store / "file").read_bytes() == CONTENT
        (store / "file").unlink()
    assert names(store) == []


def test_only_the_missing_bytes_are_asked_for(store):
    asked = []

    def behave(handler):
        asked.append(handler.headers["Range"])
        behaviour(handler)

    behaviour = cut(CONTENT, 1, 2999)
    with serve(behave) as address:
        ensure([remote(address)])
    assert asked == [None, "bytes=1-", "bytes=2999-"]


def test_a_server_that_is_gone_leaves_what_it_sent_for_the_next_time(store):
    once = [True]

    def dies(handler):
        if once:
            once.pop()
            answer(handler, CONTENT[:1000], Content_Length=str(len(CONTENT)))
        else:
            handler.send_error(500)

    with serve(dies) as address, pytest.raises(InputError, match="500"):
        ensure([remote(address)])
    assert names(store) == ["file.part"] and (store / "file.part").read_bytes() == CONTENT[:1000]
    with serve(cut(CONTENT)) as address:
        ensure([remote(address)])
    assert names(store) == ["file"] and (store / "file").read_bytes() == CONTENT


def test_a_second_download_waits_for_the_first_and_fetches_nothing(store):
    asked, go = [], threading.Event()

    def slow(handler):
        asked.append(handler.path)
        go.wait(30)
        answer(handler, CONTENT)

    with serve(slow) as address:
        both = [threading.Thread(target=ensure, args=([remote(address)],)) for _ in range(2)]
        for thread in both:
            thread.start()
        wait_for(lambda: asked)
        time.sleep(0.2)  # time for the second to arrive at the lock
        go.set()
        for thread in both:
            thread.join(30)
    assert len(asked) == 1
    assert names(store) == ["file"] and (store / "file").read_bytes() == CONTENT


def test_the_second_goes_on_where_the_first_failed(store):
    """It opened the unfinished file before the first wrote to it, or deleted it."""
    asked, go = [], threading.Event()

    def behave(handler):
        asked.append(handler.path)
        if len(asked) == 1:
            go.wait(30)
            handler.send_error(404)
        else:
            answer(handler, CONTENT)

    failures = []

    def fetch():
        try:
            ensure([remote(address)])
        except InputError as error:
            failures.append(error)

    with serve(behave) as address:
        both = [threading.Thread(target=fetch) for _ in range(2)]
        for thread in both:
            thread.start()
        wait_for(lambda: asked)
        time.sleep(0.2)
        go.set()
        for thread in both:
            thread.join(30)
    assert len(failures) == 1 and len(asked) == 2
    assert names(store) == ["file"] and (store / "file").read_bytes() == CONTENT


def test_a_killed_download_is_gone_on_with(store):
    code = (
        "import sys\nfrom ddpm.data.downloads import Remote, ensure\n"
        f"ensure([Remote('file', (sys.argv[1] + 'file',), 'sha256', {remote().digest!r})])"
    )
    asked, first = [], [True]

    def behave(handler):
        asked.append(handler.headers["Range"])
        if first:
            first.pop()
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(CONTENT)))
            handler.end_headers()
            for byte in range(200):  # flushed one after the other
                handler.wfile.write(CONTENT[byte : byte + 1])
            time.sleep(30)
        else:
            cut(CONTENT)(handler)

    with serve(behave) as address:
        command = [sys.executable, "-c", code, address]
        process = subprocess.Popen(command, env={"PYTHONPATH": str(ROOT), "no_proxy": "127.0.0.1"})
        wait_for(lambda: (store / "file.part").exists() and (store / "file.part").stat().st_size)
        process.kill()
        process.wait()
        size = (store / "file.part").stat().st_size
        ensure([remote(address)])
    assert asked == [None, f"bytes={size}-"]
    assert (store / "file").read_bytes() == CONTENT and names(store) == ["file"]


def test_mirrors_are_tried_in_order_and_may_share_the_work(store):
    def gone(handler):
        handler.send_error(503)

    def wrong(handler):
        answer(handler, b"another file")

    with serve(gone) as first, serve(wrong) as second, serve(whole(CONTENT)) as third:
        ensure([remote(first, second, third)])
        assert (store / "file").read_bytes() == CONTENT
        (store / "file").unlink()
        with pytest.raises(InputError) as failure:
            ensure([remote(first, second)])
    assert "503" in str(failure.value) and "12 bytes received are not file" in str(failure.value)
    assert names(store) == []


def test_a_hostile_name_in_an_answer_changes_no_path(store):
    """The name of the file is ours; what the server calls it, or where it redirects to, does not matter."""

    def behave(handler):
        if handler.path == "/file":
            answer(handler, b"", 302, Location="/../../../../tmp/escaped")
        else:
            answer(handler, CONTENT, Content_Disposition='attachment; filename="../../escaped"')

    with serve(behave) as address:
        ensure([remote(address)])
    assert names(store.parent.parent) == ["data/downloads/file"]


def test_an_answer_that_grows_for_ever_is_not_kept(store, monkeypatch):
    monkeypatch.setattr(downloads, "LIMIT", 50_000)
    monkeypatch.setattr(downloads, "BLOCK", 1000)

    def claims_a_terabyte(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(1 << 40))
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(1000))

    with (
        serve(claims_a_terabyte) as address,
        pytest.raises(InputError, match=r"the 5\d{4} bytes received are not file"),
    ):
        ensure([remote(address)])
    assert names(store) == []
