"""The record of our images' sizes, without an engine."""

from __future__ import annotations

from deploy import sizes
from newt.tasks.domains import DOMAINS


def test_every_image_has_a_recorded_size() -> None:
    recorded = sizes.recorded()
    assert list(recorded) == sizes.services()
    assert {domain.service for domain in DOMAINS.values()} < set(recorded)
    assert all(100 < megabytes < 10_000 for megabytes in recorded.values())
