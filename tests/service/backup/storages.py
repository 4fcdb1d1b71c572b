"""An S3 server of one's own on loopback, and faults between it and its clients."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from newt.local.ports import free_port

BUCKET = "newt-test"
KEYS = {"AWS_ACCESS_KEY_ID": "of-a-test", "AWS_SECRET_ACCESS_KEY": "of-a-test", "AWS_REGION": "us-east-1"}
# A request is forwarded (None), answered with a status and an error's code, or loses its reply half-way ("cut").
Fault = Callable[[str, str], tuple[int, str] | str | None]


@dataclass
class Storage:
    """A server, and a door to it that can be told to fail.

    Attributes:
        port: Its own port.
        environment: What a program must know to reach it through the door.
        fault: What the door does to a request, by method and path.
        asked: Methods and paths of all requests.
        client: One that goes through the door.
    """

    port: int
    environment: dict[str, str] = field(default_factory=dict)
    fault: Fault | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    client: Any = None

    def names(self) -> list[str]:
        """All objects."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def uploads(self) -> list[str]:
        """Uploads in parts that nobody has completed."""
        return [item["Key"] for item in self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())]


@contextmanager
def serving(folder: Path) -> Iterator[Storage]:
    """A server with an empty bucket; its log goes into a folder."""
    port = free_port()
    with (folder / "storage.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)],
            stdout=log,
            stderr=log,
            env={**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": "3"},  # lists come in pages
        )
    storage = Storage(port)
    door = ThreadingHTTPServer(("127.0.0.1", 0), _door(storage))
    threading.Thread(target=door.serve_forever, daemon=True).start()
    storage.environment = {**KEYS, "AWS_ENDPOINT_URL_S3": f"http://localhost:{door.server_address[1]}"}
    try:
        deadline = time.monotonic() + 60
        while not _answers(port):
            assert server.poll() is None, (folder / "storage.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield storage
    finally:
        door.shutdown()
        door.server_close()
        server.kill()
        server.wait()


def _answers(port: int) -> bool:
    try:
        http.client.HTTPConnection("127.0.0.1", port, timeout=5).request("GET", "/")
    except OSError:
        return False
    return True


def _door(storage: Storage) -> type[BaseHTTPRequestHandler]:
    class Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            storage.asked.append((self.command, self.path))
            what = storage.fault(self.command, self.path) if storage.fault else None
            if isinstance(what, tuple):
                text = f"<Error><Code>{what[1]}</Code><Message>by the test</Message></Error>".encode()
                self._answer(what[0], {"Content-Type": "application/xml"}, text, len(text))
                return
            inner = http.client.HTTPConnection("127.0.0.1", storage.port, timeout=60)
            inner.request(self.command, self.path, body, dict(self.headers))
            reply = inner.getresponse()
            data = reply.read()
            size = int(reply.headers.get("Content-Length") or len(data))  # of a HEAD: what a GET would bring
            self._answer(reply.status, dict(reply.headers), data[: len(data) // 2] if what == "cut" else data, size)
            if what == "cut":
                self.close_connection = True

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_one  # noqa: N815

        def _answer(self, status: int, headers: dict[str, str], data: bytes, size: int) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(size))
            with suppress(ConnectionError):  # of a client that was killed
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *words: Any) -> None:
            """Says nothing."""

    return Door
