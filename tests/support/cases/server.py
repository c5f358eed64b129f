"""A web server on this machine that misbehaves on purpose."""

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Behaviour = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextmanager
def serve(behaviour: Behaviour) -> Iterator[str]:
    """Answer every GET with `behaviour`, each in a thread of its own; yields the address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            with suppress(ConnectionError):  # the client went away
                behaviour(self)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def answer(handler, content: bytes, code: int = 200, **headers: str) -> None:
    handler.send_response(code)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    for name, value in ({"Content-Length": str(len(content))} | given).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)


def whole(content: bytes) -> Behaviour:
    """As it should be, though without ranges."""
    return lambda handler: answer(handler, content)


def cut(content: bytes, *places: int) -> Behaviour:
    """Keep to ranges, but cut the line at each of these bytes, once."""
    left = list(places)

    def behave(handler):
        first = int((handler.headers["Range"] or "bytes=0-")[6:-1])
        if first >= len(content):
            return answer(handler, b"", 416)
        rest = content[first : left.pop(0)] if left else content[first:]
        headers = {"Content-Length": str(len(content) - first)}
        return answer(handler, rest, 206 if first else 200, **headers)

    return behave


def redirect(handler) -> None:
    """To itself, for ever."""
    answer(handler, b"", 302, Location=handler.path)


def endless(handler) -> None:
    """More and more bytes, without saying how many."""
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(bytes(1000))
