"""Slots of a web process: a share of its threads, all but one of them for one principal, at once or with patience."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from runtime.queries.web_slots import Slots, most, most_for_names


def test_one_principal_leaves_one_to_others() -> None:
    slots = Slots(most(10))
    assert [slots.take("ann") for _ in range(5)] == [True] * 4 + [False]
    assert [slots.take("bob"), slots.take("bob")] == [True, False]
    slots.give_back("ann")
    assert slots.take("bob")


def test_who_has_patience_gets_the_next_that_is_given_back() -> None:
    slots = Slots(most(2))
    assert slots.take("ann")
    with ThreadPoolExecutor(1) as others:
        waits = others.submit(slots.take, "bob", 60)
        assert not slots.take("bob")
        slots.give_back("ann")
        assert waits.result(60)
    assert not slots.take("ann", 0.01)


def test_some_threads_wait_for_no_database() -> None:
    for threads in range(4, 100):
        assert most(threads) + most_for_names(threads) <= threads - threads // 6
