from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError
from typing import NamedTuple

import pytest

from newt.errors import ExhaustedError, UnavailableError
from services.planner.batching import BatchQueue, Ticket

FOREVER = float("inf")


class Key(NamedTuple):
    model_id: str


IntQueue = BatchQueue[Key, int, int]


def ticket(rows: int, key: str = "a", deadline: float = FOREVER) -> Ticket[Key, int, int]:
    return Ticket(Key(key), rows, 0, deadline)


def queue(max_rows: int = 8, max_wait_s: float = 0.0, max_queued_rows: int = 100) -> IntQueue:
    return IntQueue(max_rows, max_wait_s, max_queued_rows)


def put(queue: IntQueue, *tickets: Ticket[Key, int, int]) -> list[Ticket[Key, int, int]]:
    for each in tickets:
        queue.put(each)
    return list(tickets)


def test_a_batch_counts_rows_and_keeps_the_order() -> None:
    q = queue(max_rows=8)
    a, b, c = put(q, ticket(4), ticket(4), ticket(1))
    assert q.take() == [a, b]
    assert q.take() == [c]


def test_a_ticket_that_does_not_fit_starts_the_next_batch() -> None:
    q = queue(max_rows=8)
    a, b = put(q, ticket(5), ticket(4))
    assert q.take() == [a]
    assert q.take() == [b]


def test_an_oversized_ticket_rides_alone() -> None:
    q = queue(max_rows=8)
    a, b = put(q, ticket(20), ticket(1))
    assert q.take() == [a]
    assert q.take() == [b]


def test_keys_do_not_mix_and_the_oldest_goes_first() -> None:
    q = queue()
    a, b, a2 = put(q, ticket(1, "a"), ticket(1, "b"), ticket(1, "a"))
    assert q.take() == [a, a2]
    assert q.take() == [b]


def test_a_model_whose_turn_it_is_not_is_passed_over() -> None:
    q = queue()
    a, b = put(q, ticket(1, "a"), ticket(1, "b"))
    assert q.take(besides={"a"}) == [b]
    assert q.take(wait=False, besides={"a"}) is None
    assert q.take(wait=False) == [a]
    assert q.take(wait=False) is None


def test_a_full_batch_does_not_wait_and_a_small_one_does() -> None:
    q = queue(max_rows=4, max_wait_s=60)
    put(q, ticket(1, "small"))
    full = put(q, ticket(2, "full"), ticket(2, "full"))
    # With a wait of a minute, take returns only because the second key has its rows together.
    assert q.take() == full
    assert q.queued_rows == 1


def test_who_is_alone_waits_for_company_no_more() -> None:
    q = queue(max_rows=4, max_wait_s=60)
    (whole,) = put(q, ticket(4))
    assert q.take(wait=False) == [whole]
    whole.future.set_result(0)
    (alone,) = put(q, ticket(1))
    assert q.take(wait=False) == [alone]
    put(q, ticket(1, "another key"))
    assert q.take(wait=False) is None  # nobody knows yet whether that one is alone


def test_company_that_was_met_is_waited_for() -> None:
    q = queue(max_rows=100, max_wait_s=60)
    (a,) = put(q, ticket(100))
    q.take()
    (b,) = put(q, ticket(1))  # while the first is being computed
    a.future.set_result(0)
    assert q.take(wait=False) is None
    (a,) = put(q, ticket(1))
    assert q.take(wait=False) == [b, a]
    a.future.set_result(0)
    b.future.set_result(0)
    (gone,) = put(q, ticket(1))
    assert q.take(wait=False) is None  # the other one is expected again
    assert q.discard(gone)
    full = put(q, ticket(100))  # it has gone
    assert q.take(wait=False) == full
    full[0].future.set_result(0)
    last = put(q, ticket(1))
    assert q.take(wait=False) == last


def test_the_clock_starts_at_the_first_ticket() -> None:
    q = queue(max_rows=100, max_wait_s=0.2)
    first = ticket(1)
    q.put(first)
    stop = threading.Event()

    def keep_coming() -> None:
        while not stop.wait(0.02):
            q.put(ticket(1))

    thread = threading.Thread(target=keep_coming, daemon=True)
    thread.start()
    batch = q.take()
    waited = time.monotonic() - first.queued_at
    stop.set()
    thread.join(5)
    assert batch is not None
    assert batch[0] is first
    # Were the clock started again by each arrival, the batch would be due only when 100 rows are there (2 s).
    assert len(batch) < 100
    assert waited >= 0.2


def test_take_wakes_up_for_a_ticket_that_comes_later() -> None:
    q = queue()
    late = ticket(3)
    threading.Timer(0.05, q.put, [late]).start()
    assert q.take() == [late]


def test_a_full_queue_refuses_and_names_its_limit() -> None:
    q = queue(max_queued_rows=10)
    put(q, ticket(6), ticket(4))
    with pytest.raises(ExhaustedError, match="max_queued_rows: 10 of 10 rows"):
        q.put(ticket(1))


def test_a_discarded_ticket_frees_its_rows_at_once() -> None:
    q = queue(max_queued_rows=10)
    (a,) = put(q, ticket(10))
    assert q.discard(a)
    assert q.queued_rows == 0
    assert a.future.cancelled()
    (b,) = put(q, ticket(10))
    assert q.take() == [b]


def test_a_taken_ticket_cannot_be_discarded() -> None:
    q = queue()
    (a,) = put(q, ticket(1))
    assert q.take() == [a]
    assert not q.discard(a)
    assert not a.future.cancelled()


def test_expired_tickets_are_dropped_before_batching() -> None:
    q = queue()
    gone, alive = put(q, ticket(1, deadline=time.monotonic() - 1), ticket(1))
    assert q.take() == [alive]
    with pytest.raises(CancelledError):
        gone.future.result(0)


def test_closing_fails_what_waits_and_refuses_what_comes() -> None:
    q = queue(max_wait_s=60)
    a, b = put(q, ticket(1, "a"), ticket(1, "b"))
    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.append(q.take()), daemon=True)
    thread.start()
    q.close()
    thread.join(5)
    assert taken == [None]
    for each in (a, b):
        with pytest.raises(UnavailableError):
            each.future.result(0)
    with pytest.raises(UnavailableError):
        q.put(ticket(1))
    assert q.queued_rows == 0
