"""A file server on this machine that can be told to misbehave."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Manners:
    """How the server answers, and what it was asked."""

    content: bytes
    ranges: bool = True
    shift: int = 0  # added to the start of every range that it sends
    cut: list[int] = field(default_factory=list)  # close after so many bytes, one per request
    states: list[int] = field(default_factory=list)  # HTTP states to answer with first, one per request
    length: bool = True  # send Content-Length
    pace: int = 0  # bytes per second; 0: as fast as it can
    asked: list[str | None] = field(default_factory=list)  # Range header of each request


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        manners = self.server.manners
        wanted = self.headers["Range"]
        manners.asked.append(wanted)
        if self.path.startswith("/missing"):
            return self.send_error(404)
        if manners.states:
            return self.send_error(manners.states.pop(0))
        content, start = manners.content, 0
        if wanted and manners.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) + manners.shift
            if start >= len(content):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        if manners.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        body = body[: manners.cut.pop(0)] if manners.cut else body
        step = max(1, manners.pace // 20) if manners.pace else len(body)
        with suppress(ConnectionError):  # the client may give up
            for place in range(0, len(body), max(1, step)):
                self.wfile.write(body[place : place + step])
                time.sleep(0.05 if manners.pace else 0)


@contextmanager
def serving(content: bytes) -> Iterator[ThreadingHTTPServer]:
    """A running server with `url` and `manners`; every path but `/missing...` is the content."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.manners = Manners(content)
    server.url = f"http://127.0.0.1:{server.server_port}/file.pth"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
