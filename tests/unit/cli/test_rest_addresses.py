"""Where the command line sends its requests: never through a proxy to this machine, and never to nonsense."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from newt.cli.rest import Api, is_loopback
from newt.errors import InvalidInputError, UnavailableError

PROXIES = ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "http_proxy", "https_proxy")


class Learner(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"runs": []}')

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Learner) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://127.0.0.1:1", "nonsense://[::"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_reached_directly(port: int, host: str, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.setenv(name, proxy)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert Api(f"http://{host}:{port}").get("/runs") == {"runs": []}


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "nonsense://127.0.0.1:1"])
def test_a_proxy_that_cannot_be_used_is_named(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.setenv(name, proxy)
    with pytest.raises(UnavailableError, match=r"proxy that the environment names .* NO_PROXY"):
        Api("http://10.1.2.3:8000")


@pytest.mark.parametrize(
    "url", ["nonsense", "http://[::", "http://", "ftp://host", "http://host:port", "http://h:99999"]
)
def test_a_url_that_makes_no_sense_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^--url: got .*expected something like http://host:8000"):
        Api(url)


def test_this_machine_has_several_names() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost", "a.localhost")))
    assert not any(map(is_loopback, ("10.0.0.1", "example.org", "localhost.org", "::2")))
