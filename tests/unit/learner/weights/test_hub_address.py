"""Where a run's processes find the weights hub."""

import pytest

from services.learner.settings import LearnerSettings


@pytest.mark.parametrize(
    ("bound", "address"),
    [
        ("127.0.0.1", "127.0.0.1:50081"),
        ("learner", "learner:50081"),
        ("0.0.0.0", "127.0.0.1:50081"),  # a container's, which no certificate names
        ("::", "[::1]:50081"),
        ("[::]", "[::1]:50081"),
        ("fd00::7", "[fd00::7]:50081"),
    ],
)
def test_a_hub_on_all_addresses_is_found_on_loopback(bound: str, address: str) -> None:
    assert LearnerSettings(hub_host=bound, hub_port=50081).hub_address == address
