"""Addresses: IPv6 hosts in both spellings, and what is refused."""

from __future__ import annotations

import pytest

from newt.errors import InvalidInputError
from newt.wire.addresses import bare_host, check_address, host_port
from services.learner.settings import LearnerSettings


@pytest.mark.parametrize("host", ["::1", "fe80::1", "localhost", "127.0.0.1", "sim.lab.example"])
def test_both_spellings_of_a_host_are_one_address(host: str) -> None:
    assert host_port(host, 50051) == host_port(f"[{host}]", 50051)
    assert check_address(host_port(host, 50051)) == host_port(host, 50051)
    assert bare_host(f"[{host}]") == host


@pytest.mark.parametrize("address", ["", " ", "::1", "[::1]", "::1:50051", "fe80::1:8000"])
def test_an_address_without_a_port_that_can_be_told_is_refused_with_the_right_form(address: str) -> None:
    with pytest.raises(InvalidInputError, match=r"expected (host:port|brackets and a port)") as caught:
        check_address(address, "sims.dmcontrol")
    assert caught.value.field == "sims.dmcontrol"


@pytest.mark.parametrize("address", ["localhost:1", "[::1]:1", "dns:///planner:50071", "unix:/run/newt.sock"])
def test_other_targets_of_grpc_pass(address: str) -> None:
    assert check_address(address) == address


@pytest.mark.parametrize("settings", [{"replay": "::1"}, {"planner": ""}, {"sims": {"dmcontrol": "fe80::1:50051"}}])
def test_settings_refuse_what_no_client_could_take(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=rf"(?s){next(iter(settings))}.*expected (brackets|host:port)"):
        LearnerSettings.model_validate(settings)
    good = {"replay": "[::1]:50061", "planner": "planner:50071", "sims": {"dmcontrol": "[::1]:50051"}}
    assert LearnerSettings.model_validate(good).replay == good["replay"]
