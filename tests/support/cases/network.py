"""Servers that misbehave, and files that are not what they should be."""

import errno
import hashlib
from collections.abc import Callable
from pathlib import Path

from tests.support.cases.case import POINTER, Case, Place
from tests.support.cases.server import Behaviour, answer, cut, endless, redirect, whole

CONTENT = bytes(range(256)) * 40  # in the place of the Inception weights
STORE = Path("data/downloads")
CLOSED = "http://127.0.0.1:9/"  # nothing listens there


def weights_at(*addresses: str, content: bytes = CONTENT) -> Callable[[Place], None]:
    """Let only the Inception weights be wanted, from these addresses."""

    def prepare(place: Place) -> None:
        from ddpm.evaluation import weights

        place.set("data.source", "synthetic")
        place.patch.setattr("pytorch_fid.inception.FID_WEIGHTS_URL", addresses[0] + "inception.pth")
        place.patch.setattr(weights, "INCEPTION_MIRRORS", tuple(f"{address}mirror.pth" for address in addresses[1:]))
        place.patch.setattr(weights, "INCEPTION_SHA256", hashlib.sha256(content).hexdigest())

    return prepare


def impatient(prepare: Callable[[Place], None]) -> Callable[[Place], None]:
    def prepare_impatient(place: Place) -> None:
        prepare(place)
        place.patch.setattr("ddpm.data.downloads.TIMEOUT", 0.5)

    return prepare_impatient


def server(behaviour: Behaviour) -> Callable[[Place], None]:
    return lambda place: weights_at(place.serve(behaviour))(place)


def silent(handler) -> None:
    import time

    handler.send_response(200)
    handler.end_headers()
    time.sleep(30)


def closes(handler) -> None:
    """Promises everything and sends nothing."""
    answer(handler, b"", Content_Length="10240")


def nothing_there(handler) -> None:
    handler.send_error(404)


def page(handler) -> None:
    answer(handler, b"<html>Please log in</html>", Content_Type="text/html; charset=utf-8")


def to_a_file(handler) -> None:
    answer(handler, b"", 302, Location="file:///etc/passwd")


def without_end(place: Place) -> None:
    server(endless)(place)
    place.patch.setattr("ddpm.data.downloads.LIMIT", 100_000)
    place.patch.setattr("ddpm.data.downloads.BLOCK", 1000)


def disk_full(place: Place) -> None:
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    server(whole(CONTENT))(place)
    place.patch.setattr("ddpm.data.downloads._receive_once", full)


def mirrored(place: Place) -> None:
    weights_at(CLOSED, place.serve(whole(CONTENT)))(place)


def left_over(content: bytes, behaviour: Behaviour) -> Callable[[Place], None]:
    """What an earlier process, which was killed, has left in the store."""

    def prepare(place: Place) -> None:
        server(behaviour)(place)
        STORE.mkdir(parents=True)
        (STORE / "inception.pth.part").write_bytes(content)

    return prepare


def placed_wrong(place: Place) -> None:
    server(whole(CONTENT))(place)
    STORE.mkdir(parents=True)
    (STORE / "inception.pth").write_bytes(b"something else")


def local(content: bytes | None) -> Callable[[Place], None]:
    def prepare(place: Place) -> None:
        weights_at(CLOSED)(place)
        place.set("fid.weights", "mine.pth")
        if content is not None:
            Path("mine.pth").write_bytes(content)

    return prepare


def arrived(place: Place) -> bool:
    return Path("data/weights/fetched/inception.pth").read_bytes() == CONTENT and [f.name for f in STORE.iterdir()] == [
        "inception.pth"
    ]


DOWNLOADS = [
    Case(
        "no server",
        weights_at(CLOSED),
        (
            "inception.pth: cannot be downloaded (http://127.0.0.1:9/inception.pth: urlopen error [Errno 111] "
            "Connection refused); connect to the network and run the command again, or place by hand into "
            "data/downloads: inception.pth (http://127.0.0.1:9/inception.pth); `make demo` needs no network"
        ),
        run="download",
    ),
    Case(
        "a server that never answers",
        impatient(server(silent)),
        (
            "inception.pth: cannot be downloaded (http://server/inception.pth: timed out); connect to the network"
            " and run the command again, or place by hand into data/downloads: inception.pth "
            "(http://server/inception.pth); `make demo` needs no network"
        ),
        run="download",
    ),
    Case(
        "a server without the file",
        server(nothing_there),
        (
            "inception.pth: cannot be downloaded (http://server/inception.pth: HTTP Error 404: Not Found); "
            "connect to the network and run the command again, or place by hand into data/downloads: "
            "inception.pth (http://server/inception.pth); `make demo` needs no network"
        ),
        run="download",
    ),
    Case(
        "a server that redirects in a circle",
        server(redirect),
        (
            "inception.pth: cannot be downloaded (http://server/inception.pth: HTTP Error 302: …); connect to the"
            " network and run the command again, or place by hand into data/downloads: inception.pth "
            "(http://server/inception.pth); `make demo` needs no network"
        ),
        run="download",
    ),
    Case(
        "a server that redirects to a file of this machine",
        server(to_a_file),
        (
            "inception.pth: cannot be downloaded (http://server/inception.pth: HTTP Error 302: …); connect to the"
            " network and run the command again, or place by hand into data/downloads: inception.pth "
            "(http://server/inception.pth); `make demo` needs no network"
        ),
        run="download",
    ),
    Case(
        "a server that always closes the line",
        server(closes),
        (
            "inception.pth: cannot be downloaded (http://server/inception.pth: cut off after 0 of 10240 bytes); "
            "connect to the network and run the command again, or place by hand into data/downloads: "
            "inception.pth (http://server/inception.pth); `make demo` needs no network"
        ),
        run="download",
    ),
    Case(
        "a login page instead of the file",
        server(page),
        (
            "inception.pth: cannot be downloaded (http://server/inception.pth: the 26 bytes received are not "
            "inception.pth (sha256 is 39bb8635d641…, expected e96760a87768…); that is a web page, perhaps of a "
            "login: open it in a browser); connect to the network and run the command again, or place by hand "
            "into data/downloads: inception.pth (http://server/inception.pth); `make demo` needs no network"
        ),
        run="download",
    ),
    Case(
        "another file",
        server(whole(CONTENT[1:])),
        (
            "inception.pth: cannot be downloaded (http://server/inception.pth: the 10239 bytes received are not "
            "inception.pth (sha256 is 6a5ad9a09a09…, expected e96760a87768…)); connect to the network and run the"
            " command again, or place by hand into data/downloads: inception.pth (http://server/inception.pth); "
            "`make demo` needs no network"
        ),
        run="download",
    ),
    Case(
        "a file without end",
        without_end,
        (
            "inception.pth: cannot be downloaded (http://server/inception.pth: the … bytes received are not "
            "inception.pth (sha256 is …, expected e96760a87768…)); connect to the network and run the"
            " command again, or place by hand into data/downloads: inception.pth (http://server/inception.pth); "
            "`make demo` needs no network"
        ),
        run="download",
    ),
    Case(
        "a full disk",
        disk_full,
        "the disk of … is full; free some space and run the same command again",
        1,
        "download",
    ),
    Case(
        "a wrong file, placed by hand",
        placed_wrong,
        (
            "data/downloads/inception.pth: sha256 is "
            "f41f3fa625ff120ddca7ef456bf66371ecea23c129f4e4c32367101edb516cf8, expected "
            "e96760a87768717bcebcfd25ddc7d46b4dbc95a4b0014def080c08539f7d90d0, so it is not inception.pth or is "
            "damaged; replace it by http://server/inception.pth"
        ),
        run="download",
    ),
    Case(
        "`fid.weights` that lead nowhere",
        local(None),
        ("fid.weights: mine.pth is no file; correct the path, or set null to download the weights"),
        run="download",
    ),
    Case(
        "`fid.weights` of a file that git LFS has not fetched",
        local(POINTER),
        "mine.pth: it is a pointer of git LFS, not the file itself, which `git lfs pull` fetches",
        run="download",
    ),
    Case(
        "`fid.weights` of another file",
        local(b"other weights"),
        (
            "mine.pth: sha256 is 53959fa102f31e51d8d1ee12fe89c2fd7cd556dbaf2c6102046d195a504850a0, expected "
            "e96760a87768717bcebcfd25ddc7d46b4dbc95a4b0014def080c08539f7d90d0, so it is not inception.pth or is "
            "damaged; replace it by http://127.0.0.1:9/inception.pth"
        ),
        run="download",
    ),
    Case(
        "a line that is cut three times",
        server(cut(CONTENT, 1, 700, 10_239)),
        "asked for the rest, three times",
        0,
        "download",
        check=arrived,
    ),
    Case("the first address does not answer", mirrored, "fetched from the next", 0, "download", check=arrived),
    Case(
        "the rest of a killed download",
        left_over(CONTENT[:99], cut(CONTENT)),
        "the rest is fetched",
        0,
        "download",
        check=arrived,
    ),
    Case(
        "the rest, and a server that always sends all",
        left_over(CONTENT[:99], whole(CONTENT)),
        "fetched anew",
        0,
        "download",
        check=arrived,
    ),
    Case(
        "the rest of something else", left_over(bytes(999), cut(CONTENT)), "fetched anew", 0, "download", check=arrived
    ),
    Case("a rest that lacks nothing", left_over(CONTENT, cut(CONTENT)), "taken as it is", 0, "download", check=arrived),
]
