"""Mutual TLS between real servers and clients, with certificates of the project's own script."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from certificate_folders import make_certificates
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY

from newt.security import SecurityError
from newt.wire import probe, tls
from newt.wire.channels import CHANNEL_OPTIONS, connect
from newt.wire.server import LIVENESS, Server

SERVICE = "newt.v1.SimService"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates with the same names, of another authority."""
    return make_certificates(tmp_path_factory.mktemp("strangers"))


@pytest.fixture
def served(folder: Path, tmp_path: Path) -> Path:
    """The folder of the server below, which a test may change."""
    return Path(shutil.copytree(folder, tmp_path / "served"))


@pytest.fixture
def server(served: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with monkeypatch.context() as patch:
        patch.setenv("NEWT_TLS_DIR", str(served))
        running = Server(SERVICE, "127.0.0.1", 0, max_threads=4)
    running.start()
    yield running
    running.stop(grace_s=0)


def call(channel: grpc.Channel, timeout_s: float = 5.0) -> grpc.StatusCode:
    """How one call ends."""
    with channel:
        try:
            health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=LIVENESS), timeout=timeout_s
            )
        except grpc.RpcError as error:
            return error.code()  # type: ignore[attr-defined,no-any-return]
    return grpc.StatusCode.OK


def test_the_right_certificate_works(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWT_TLS_DIR", str(folder))
    assert call(connect(server.address)) is grpc.StatusCode.OK
    assert call(connect(server.address, one_replica=True)) is grpc.StatusCode.OK


def test_a_plain_client_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEWT_TLS_DIR", raising=False)
    assert call(connect(server.address)) is grpc.StatusCode.UNAVAILABLE


def test_a_client_without_a_certificate_is_refused(server: Server, folder: Path) -> None:
    trusting = grpc.ssl_channel_credentials((folder / tls.CA).read_bytes())
    assert call(grpc.secure_channel(server.address, trusting, CHANNEL_OPTIONS)) is grpc.StatusCode.UNAVAILABLE


def test_a_client_of_another_authority_is_refused(server: Server, folder: Path, strangers: Path) -> None:
    ca, *own = (
        (where / name).read_bytes()
        for where, name in ((folder, tls.CA), (strangers, tls.KEY), (strangers, tls.CERTIFICATE))
    )
    credentials = grpc.ssl_channel_credentials(ca, *own)
    assert call(grpc.secure_channel(server.address, credentials, CHANNEL_OPTIONS)) is grpc.StatusCode.UNAVAILABLE


def test_a_server_of_another_authority_is_refused(
    server: Server, strangers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEWT_TLS_DIR", str(strangers))
    assert call(connect(server.address)) is grpc.StatusCode.UNAVAILABLE


def test_a_server_under_a_name_that_it_has_not_is_refused(server: Server, folder: Path) -> None:
    credentials = grpc.ssl_channel_credentials(
        *((folder / name).read_bytes() for name in (tls.CA, tls.KEY, tls.CERTIFICATE))
    )
    for name, expected in (("sim-metaworld", grpc.StatusCode.OK), ("elsewhere", grpc.StatusCode.UNAVAILABLE)):
        options = [*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", name)]
        assert call(grpc.secure_channel(server.address, credentials, options)) is expected, name


def test_a_tls_client_does_not_talk_to_a_plain_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEWT_TLS_DIR", raising=False)
    plain = Server(SERVICE, "127.0.0.1", 0, max_threads=4)
    plain.start()
    try:
        monkeypatch.setenv("NEWT_TLS_DIR", str(folder))
        assert call(connect(plain.address)) is grpc.StatusCode.UNAVAILABLE
    finally:
        plain.stop(grace_s=0)


def test_the_probe_of_the_containers_works(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWT_TLS_DIR", str(folder))
    command = [sys.executable, "-m", "newt.wire.probe", server.address, LIVENESS, "--timeout-s", "10"]
    assert subprocess.run(command, timeout=60).returncode == 0
    monkeypatch.setenv("NEWT_TLS_DIR", str(folder / "missing"))
    assert "ca.crt: No such file" in str(probe.check(server.address, LIVENESS, 5))


def test_a_server_takes_new_certificates(
    server: Server, served: Path, strangers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEWT_TLS_DIR", str(strangers))
    assert call(connect(server.address)) is grpc.StatusCode.UNAVAILABLE
    # Half of a change: the old certificate stays in use.
    (served / tls.KEY).write_bytes((strangers / tls.KEY).read_bytes())
    assert call(connect(server.address)) is grpc.StatusCode.UNAVAILABLE
    for name in (tls.CA, tls.CERTIFICATE):
        (served / name).write_bytes((strangers / name).read_bytes())
    assert call(connect(server.address)) is grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder, other: (folder / tls.KEY).unlink(), r"tls\.key: No such file"),
        (lambda folder, other: shutil.copy(other / tls.KEY, folder), "KEY_VALUES_MISMATCH"),
        (lambda folder, other: shutil.copy(other / tls.CA, folder), "unable to get local issuer certificate|signature"),
        (lambda folder, other: (folder / tls.CA).write_text("no certificate"), "NO_CERTIFICATE|PEM"),
        (lambda folder, other: make_certificates(folder, "--renew", "--days", "0"), "certificate has expired"),
    ],
    ids=["missing", "foreign key", "foreign authority", "no certificate", "expired"],
)
def test_a_folder_that_cannot_work_is_refused_at_start(
    served: Path, strangers: Path, harm: object, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    harm(served, strangers)  # type: ignore[operator]
    monkeypatch.setenv("NEWT_TLS_DIR", str(served))
    for start in (lambda: connect("127.0.0.1:9"), lambda: Server(SERVICE, "127.0.0.1", 0)):
        with pytest.raises(SecurityError, match=said) as caught:
            start()
        assert "NEWT_TLS_DIR" in str(caught.value)


def test_what_expires_first_is_shown(tmp_path: Path) -> None:
    """The certificate, whose authority lives longer."""
    tls.load(make_certificates(tmp_path / "made", "--days", "5"))
    shown = REGISTRY.get_sample_value("newt_tls_certificate_expiry_timestamp_seconds")
    assert shown is not None
    assert 4.9 < (shown - time.time()) / 86_400 < 5.1


def test_a_misspelt_switch_is_not_a_switch_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWT_TLS_DRI", "certificates")
    with pytest.raises(SecurityError, match="NEWT_TLS_DRI"):
        Server(SERVICE, "127.0.0.1", 0)


def test_an_empty_switch_is_not_a_switch_that_is_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEWT_TLS_DIR", "")
    with pytest.raises(SecurityError, match="NEWT_TLS_DIR"):
        Server(SERVICE, "127.0.0.1", 0)
