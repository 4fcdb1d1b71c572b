"""Many who follow one record share the looks at it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from newt.errors import NotFoundError
from services.learner.rest.events import Look, SharedLooks


def test_those_who_ask_at_once_share_a_look_that_is_not_older_than_the_question() -> None:
    version, looked, begun, go_on = 1, 0, threading.Event(), threading.Event()

    def look() -> Look:
        nonlocal looked
        looked += 1
        seen = str(version)
        begun.set()
        assert go_on.wait(30)
        return Look(seen, False)

    async def ask() -> list[str]:
        nonlocal version
        looks = SharedLooks()
        early = [asyncio.ensure_future(looks.look("r", look)) for _ in range(20)]
        await asyncio.to_thread(begun.wait, 30)
        version = 2  # the look that is going on has seen the first
        late = [asyncio.ensure_future(looks.look("r", look)) for _ in range(20)]
        other = asyncio.ensure_future(looks.look("another", lambda: Look("apart", True)))
        assert (await other).state == "apart"  # nobody waits for looks at other records
        late[0].cancel()  # one who leaves takes nothing from the others
        go_on.set()
        return [(await one).state for one in (*early, *late[1:])]

    assert asyncio.run(ask()) == ["1"] * 20 + ["2"] * 19
    assert looked == 2


def test_an_error_is_for_all_who_asked_and_not_for_those_after() -> None:
    def missing() -> Look:
        raise NotFoundError("gone")

    async def ask() -> None:
        looks = SharedLooks()
        found = await asyncio.gather(*(looks.look("r", missing) for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in found] == [NotFoundError] * 3
        assert (await looks.look("r", lambda: Look("back", False))).state == "back"
        with pytest.raises(NotFoundError):
            await looks.look("r", missing)

    asyncio.run(ask())
