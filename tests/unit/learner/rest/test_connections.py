"""Connections on which nobody asks for anything are closed, and are in nobody's way."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from services.learner.rest import connections, guard
from services.learner.rest.connections import PromptProtocol
from services.learner.rest.guard import BodyLimit

HEAD_S, BODY_S = 0.6, 0.6


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/slow":
        await asyncio.sleep(2 * HEAD_S)
    body = await Request(scope, receive).body()
    await PlainTextResponse(str(len(body)))(scope, receive, send)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "HEAD_TIMEOUT_S", HEAD_S)
        patch.setattr(guard, "BODY_TIMEOUT_S", BODY_S)
        bound = socket.create_server(("127.0.0.1", 0), backlog=500)
        config = uvicorn.Config(BodyLimit(app, 1 << 20), http=PromptProtocol, log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        yield bound.getsockname()[1]
        server.should_exit = True
        thread.join()


HALVES = [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: x\r\n", b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HT"]


def test_half_open_connections_go_away(port: int) -> None:
    opened = [socket.create_connection(("127.0.0.1", port)) for _ in range(400)]
    for number, connection in enumerate(opened):
        connection.sendall(HALVES[number % len(HALVES)])
        connection.settimeout(10)
    start = time.monotonic()
    assert httpx.get(f"http://127.0.0.1:{port}/").text == "0"
    assert time.monotonic() - start < 1
    for connection in opened:
        try:
            while connection.recv(1000):
                pass
        except ConnectionResetError:
            pass
        connection.close()


def dribble(connection: socket.socket, content: bytes) -> None:
    for byte in content:
        connection.sendall(bytes([byte]))
        time.sleep(0.02)


def test_one_byte_at_a_time_is_not_enough(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        start = time.monotonic()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            dribble(connection, b"GET / HTTP/1.1\r\nx: " + b"y" * 1000)
        assert time.monotonic() - start < 5 * HEAD_S


def test_a_body_that_does_not_come_ends_the_request(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(10)
        connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc")
        assert connection.recv(100).startswith(b"HTTP/1.1 ")


def test_a_slow_reply_and_a_second_request_are_none_of_this(port: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert client.get("/slow").text == "0"
        assert client.post("/", content=b"abc").text == "3"
