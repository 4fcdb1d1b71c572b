"""Mutual TLS: the credentials of all gRPC servers and clients, when NEWT_TLS_DIR is set.

The folder has the names that cert-manager and Kubernetes use: ca.crt, the authority that both sides trust and nobody
else's; tls.crt and tls.key, this process's certificate, shown to servers and to clients alike. Servers read the folder
anew when it changes, for the next connection; clients when they make a channel.
"""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog
from prometheus_client import Gauge

from newt.security import SecurityError, SecuritySettings

CA, CERTIFICATE, KEY = "ca.crt", "tls.crt", "tls.key"

EXPIRES = Gauge(
    "newt_tls_certificate_expiry_timestamp_seconds",
    "When the certificate that was loaded last expires, or its authority's, whichever is first; 0 without TLS.",
)
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Identity:
    """Contents of a folder: PEM."""

    ca: bytes
    certificate: bytes
    key: bytes


def channel_credentials() -> grpc.ChannelCredentials | None:
    """What a client needs; None if TLS is off.

    Raises:
        SecurityError: The folder is not fit for use; the message says why.
    """
    folder = SecuritySettings().tls_dir
    if folder is None:
        return None
    identity = load(folder)
    return grpc.ssl_channel_credentials(identity.ca, identity.key, identity.certificate)


def server_credentials() -> grpc.ServerCredentials | None:
    """What a server needs, which asks every client for a certificate; None if TLS is off.

    Raises:
        SecurityError: The folder is not fit for use; the message says why.
    """
    folder = SecuritySettings().tls_dir
    if folder is None:
        return None
    watcher = _Watcher(folder)
    fetch: Any = watcher.fetch  # may return None, which the stubs do not know
    return grpc.dynamic_ssl_server_credentials(watcher.first, fetch, require_client_authentication=True)


def load(folder: Path) -> Identity:
    """Reads a folder and tries it out: a handshake in memory, with itself on both sides.

    Raises:
        SecurityError: A file is missing, key and certificate do not belong together, the certificate is not of the
            authority, is expired, or is not for servers and clients both.
    """
    try:
        identity = Identity(*((folder / name).read_bytes() for name in (CA, CERTIFICATE, KEY)))
        EXPIRES.set(_shake_hands(folder))
    except OSError as error:  # ssl.SSLError is one
        what = error.filename or folder
        reason = getattr(error, "verify_message", "") or error.strerror or str(error)
        raise SecurityError(
            f"NEWT_TLS_DIR: {what}: {reason}; expected a folder with {CA}, {CERTIFICATE} and {KEY} that belong "
            "together (docs/security.md says how to make one)"
        ) from error
    return identity


def _shake_hands(folder: Path) -> float:
    """Returns when the first of both certificates expires, in seconds since 1970."""
    client_in, server_in = ssl.MemoryBIO(), ssl.MemoryBIO()
    client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client.check_hostname = False  # names are for the other side to check
    for context in (client, server):
        # The empty password keeps OpenSSL from asking the terminal for that of an encrypted key.
        context.load_cert_chain(folder / CERTIFICATE, folder / KEY, password="")
        context.load_verify_locations(folder / CA)
        context.verify_mode = ssl.CERT_REQUIRED
    client_side = client.wrap_bio(client_in, server_in)
    sides = [
        client_side,
        server.wrap_bio(server_in, client_in, server_side=True),
    ]
    while sides:
        for side in list(sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            sides.remove(side)
    shown: Any = [client_side.getpeercert(), *client.get_ca_certs()]
    return min(ssl.cert_time_to_seconds(certificate["notAfter"]) for certificate in shown)


class _Watcher:
    """Gives gRPC the newest good contents of a folder, at every handshake."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._stamps = self._look()
        self.first = _configuration(load(folder))

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """None if nothing has changed, or if what has come is not fit for use: then the old one stays."""
        with self._lock:
            try:
                stamps = self._look()
                if stamps == self._stamps:
                    return None
                changed = _configuration(load(self._folder))
            except (OSError, SecurityError) as error:
                # Perhaps half of the files are new: the next handshake looks again.
                log.error("certificate_not_loaded", error=str(error))
                return None
            self._stamps = stamps
            log.info("certificate_loaded", folder=str(self._folder))
            return changed

    def _look(self) -> list[tuple[int, int]]:
        try:
            states = [(self._folder / name).stat() for name in (CA, CERTIFICATE, KEY)]
        except OSError:
            return []
        return [(state.st_ino, state.st_mtime_ns) for state in states]


def _configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(identity.key, identity.certificate)], identity.ca)
