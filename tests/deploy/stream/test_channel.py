"""The queue between two threads: order, room, dropping, and both ways to end."""

import time
from threading import Thread

import pytest

from deploy.stream.channel import Channel


def filled(channel: Channel[int], count: int) -> Channel[int]:
    for item in range(count):
        assert channel.put(item)
    return channel


def test_items_keep_their_order_and_the_end_comes_after_them():
    channel = filled(Channel(3), 3)
    channel.end()
    assert list(channel) == [0, 1, 2]
    assert list(channel) == []


def test_a_reason_is_raised_after_the_items():
    channel = filled(Channel(3), 2)
    channel.end(ValueError("broken"))
    items = iter(channel)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ValueError, match="broken"):
        next(items)


def test_a_full_channel_waits_for_room():
    channel = filled(Channel(2), 2)
    put = []
    thread = Thread(target=lambda: put.append(channel.put(2)))
    thread.start()
    time.sleep(0.05)
    assert (put, len(channel)) == ([], 2)
    assert next(iter(channel)) == 0
    thread.join(1)
    assert (put, len(channel)) == ([True], 2)


def test_a_full_channel_that_drops_keeps_the_newest():
    channel = filled(Channel(2, drop=True), 7)
    channel.end()
    assert list(channel) == [5, 6]


@pytest.mark.parametrize("end", ["end", "close"])
def test_ending_wakes_a_put_that_waits(end):
    channel = filled(Channel(1), 1)
    put = []
    thread = Thread(target=lambda: put.append(channel.put(1)))
    thread.start()
    time.sleep(0.05)
    getattr(channel, end)()
    thread.join(1)
    assert put == [False]


def test_closing_discards_what_waits_and_wakes_a_consumer():
    channel = filled(Channel(2), 2)
    channel.close()
    assert (list(channel), channel.put(3), len(channel)) == ([], False, 0)

    empty, found = Channel[int](1), []
    thread = Thread(target=lambda: found.extend(empty))
    thread.start()
    time.sleep(0.05)
    empty.close()
    thread.join(1)
    assert not thread.is_alive()
