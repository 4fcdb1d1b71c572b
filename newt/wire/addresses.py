"""Addresses of services: `host:port`, where an IPv6 host stands in brackets."""

from __future__ import annotations

import ipaddress

from newt.errors import InvalidInputError


def bare_host(host: str) -> str:
    """A host without the brackets that may be around an IPv6 address: what sockets and resolvers take.

    >>> bare_host("[::1]"), bare_host("::1"), bare_host("localhost")
    ('::1', '::1', 'localhost')
    """
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def host_port(host: str, port: int) -> str:
    """One string of a host, in either spelling, and a port: what URLs and gRPC take.

    >>> host_port("::1", 50051), host_port("[::1]", 50051), host_port("localhost", 50051)
    ('[::1]:50051', '[::1]:50051', 'localhost:50051')
    """
    host = bare_host(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_address(address: str, field: str = "address") -> str:
    """The address again, if gRPC can take it.

    Args:
        address: `host:port`, or any gRPC target.
        field: What the caller calls it.

    Raises:
        InvalidInputError: It is empty, or an IPv6 address without brackets, whose port nobody can tell from it.
    """
    if not isinstance(address, str) or not address.strip():
        raise InvalidInputError(field, f"got {address!r}, expected host:port")
    host, _, port = address.rpartition(":")
    if _is_ipv6(bare_host(address)) or _is_ipv6(host):
        example = f"[{host}]:{port}" if _is_ipv6(host) and port else f"[{bare_host(address)}]:50051"
        raise InvalidInputError(field, f"got {address!r}, expected brackets and a port, as in {example}")
    return address


def split_addresses(addresses: str, field: str = "addresses") -> list[str]:
    """Addresses that commas separate; raises as `check_address`.

    >>> split_addresses("lab1:50061, lab2:50061")
    ['lab1:50061', 'lab2:50061']
    """
    found = [check_address(address.strip(), field) for address in addresses.split(",")]
    for address in found:
        if found.count(address) > 1:
            raise InvalidInputError(field, f"got {address!r} twice, expected different addresses")
    return found


def is_ip(host: str) -> bool:
    """Whether a host without brackets is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_ipv6(host: str) -> bool:
    return ":" in host and is_ip(host)
