"""An alert of a real service reaches people by webhook and mail: replay, Prometheus, and compose's Alertmanager."""

from __future__ import annotations

import email
import json
import os
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from newt.client.replay import ReplayClient
from newt.local import redis_server
from newt.local.ports import free_port

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]
ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
ALERT = "NewtReplayBrokenRecords"
WAIT_S = 150.0  # of which group_interval is one minute


class Webhook(ThreadingHTTPServer):
    """Keeps what is posted to it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Posts)
        self.got: list[dict[str, Any]] = []


class _Posts(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        self.server.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *words: Any) -> None:
        """Says nothing."""


class MailServer(socketserver.ThreadingTCPServer):
    """As much of SMTP as a sender needs."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Mails)
        self.got: list[Message] = []


class _Mails(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline():
            word = line[:4].upper().strip()
            if word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = []
                while (line := self.rfile.readline()) not in (b".\r\n", b""):
                    lines.append(line)
                self.server.got.append(email.message_from_bytes(b"".join(lines)))
            self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 good\r\n")


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def running(folder: Path, name: str, *command: str, **environment: str) -> Iterator[None]:
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
    try:
        yield
        assert process.poll() is None, (folder / f"{name}.log").read_text()
    finally:
        process.terminate()
        process.wait(20)


def wait_for(condition: Callable[[], Any], folder: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "\n".join(path.read_text()[-2_000:] for path in folder.glob("*.log"))
        time.sleep(0.2)


def alertmanager(folder: Path, port: int, **settings: str) -> tuple[list[str], dict[str, str]]:
    """Compose's command for the binary and the folders of this machine, with its environment."""
    service = COMPOSE["services"]["alertmanager"]
    command = service["entrypoint"][-1]
    places = {"/etc/newt/": f"{ROOT}/deploy/alertmanager/", "/tmp/": f"{folder}/", "=/alertmanager": f"={folder}/state"}
    places |= {"/bin/alertmanager": "prometheus-alertmanager", "=:9093": f"=127.0.0.1:{port}"}
    for old, new in places.items():
        assert old in command
        command = command.replace(old, new)
    assert set(settings) <= set(service["environment"])
    return [*service["entrypoint"][:-1], command], settings


def test_an_alert_reaches_a_webhook_and_a_mailbox_and_is_taken_back(tmp_path: Path) -> None:
    hook, mails = Webhook(), MailServer()
    replay, metrics, alerts, web = (free_port() for _ in range(4))
    store = redis_server.start(tmp_path / "redis")
    with ExitStack() as stack:
        stack.callback(store.stop)
        stack.enter_context(serving(hook))
        stack.enter_context(serving(mails))
        raw: Any = stack.enter_context(redis.Redis.from_url(store.url))
        raw.sadd("newt:replay:1:spaces", "buffer:bad")
        raw.hset("newt:replay:1:buffer:bad:meta", mapping={"incarnation": "1", "next": "nonsense"})
        settings = {"REDIS_URL": store.url, "PORT": str(replay), "METRICS_PORT": str(metrics)}
        settings = {f"NEWT_REPLAY_{name}": value for name, value in settings.items()}
        stack.enter_context(running(tmp_path, "replay", sys.executable, "-m", "services.replay", **settings))
        command, environment = alertmanager(
            tmp_path,
            alerts,
            ALERT_WEBHOOK=f"http://127.0.0.1:{hook.server_port}/alerts",
            ALERT_EMAIL_TO="people@example.org",
            ALERT_EMAIL_FROM="newt@example.org",
            ALERT_SMTP=f"127.0.0.1:{mails.server_address[1]}",
            ALERT_SMTP_TLS="false",
        )
        stack.enter_context(running(tmp_path, "alertmanager", *command, **environment))
        config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
        config["rule_files"] = [str(ROOT / "deploy" / "prometheus" / "rules.yml")]
        # Here neither has a name; the rest is compose's.
        config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [f"127.0.0.1:{alerts}"]}]}]
        config["scrape_configs"] = [
            {"job_name": "replay", "static_configs": [{"targets": [f"127.0.0.1:{metrics}"]}]},
        ]
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        address = f"--web.listen-address=127.0.0.1:{web}"
        folders = [f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
        stack.enter_context(running(tmp_path, "prometheus", "prometheus", address, *folders))

        def posted(status: str) -> list[dict[str, Any]]:
            got = [item for post in hook.got for item in post["alerts"]]
            return [item for item in got if (item["status"], item["labels"]["alertname"]) == (status, ALERT)]

        def mailed(status: str) -> bool:
            return any(f"[{status}" in mail["Subject"] and ALERT in mail["Subject"] for mail in mails.got)

        wait_for(lambda: posted("firing") and mailed("FIRING"), tmp_path)
        (alert,) = posted("firing")
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert alert["labels"]["job"] == "replay"
        assert alert["annotations"]["summary"]
        assert not posted("resolved")
        mail = next(mail for mail in mails.got if ALERT in mail["Subject"])
        assert (mail["To"], mail["From"]) == ("people@example.org", "newt@example.org")
        with ReplayClient(f"127.0.0.1:{replay}") as client:
            client.delete_buffer("bad")
        wait_for(lambda: posted("resolved") and mailed("RESOLVED"), tmp_path)
