"""Jobs one after another: places, events, errors, and who does not wait any more."""

import asyncio
import threading
import time

from mmjax.app.line import Line
from mmjax.errors import UserError


async def there():
    return False


async def all_of(line, work, gone=there):
    return [event async for event in line.events(work, gone)]


def test_one_computes_and_the_others_are_told_their_place():
    async def both():
        line, at_once, most = Line(), 0, 0

        def work(name):
            def say(tell):
                nonlocal at_once, most
                at_once += 1
                most = max(most, at_once)
                time.sleep(0.02)
                tell({"text": name})
                at_once -= 1

            return say

        told = await asyncio.gather(*(all_of(line, work(n)) for n in "abc"))
        line.close()
        return most, told

    most, told = asyncio.run(both())
    assert most == 1
    for n, events in enumerate(told):
        places = [event["place"] for event in events if "place" in event]
        assert places == sorted(places, reverse=True) and places[-1] == 0
        assert max(places) <= n and {"text": "abc"[n]} in events
        assert events[-1]["done"] > 0


def test_an_error_is_told_and_ends_nothing(caplog):
    def broken(tell):
        raise KeyError("w")

    def refused(tell):
        raise UserError("give 1 or more")

    async def three():
        line = Line()
        works = (broken, refused, lambda tell: tell({"text": "still here"}))
        told = [await all_of(line, work) for work in works]
        line.close()
        return told

    first, second, third = asyncio.run(three())
    text = "This request failed: KeyError, see the terminal"
    assert {"error": text} in first and "a request failed" in caplog.text
    assert {"error": "give 1 or more"} in second
    assert {"text": "still here"} in third


def test_who_leaves_is_cancelled_waiting_or_computing():
    reached, go_on, ended = threading.Event(), threading.Event(), []

    def long(tell):
        for n in range(100):
            reached.set()
            go_on.wait(5)
            tell({"text": n})
        ended.append("long")

    async def leave():
        line = Line(most=2)
        computes = line.events(long, there)
        waits = line.events(lambda tell: ended.append("waits"), there)
        assert await anext(computes) == {"place": 0}
        reached.wait(5)
        assert await anext(waits) == {"place": 1} and line.full
        await waits.aclose()
        assert not line.full
        await computes.aclose()
        go_on.set()
        last = await all_of(line, lambda tell: tell({"text": "last"}))
        line.close()
        return last

    assert {"text": "last"} in asyncio.run(leave())
    assert ended == []


def test_a_browser_that_is_gone_is_asked_for(monkeypatch):
    monkeypatch.setattr("mmjax.app.line._GONE", 0.01)
    told, over = [], threading.Event()

    def work(tell):
        over.wait(5)
        tell({"text": "nobody hears it"})
        told.append("on")

    async def gone():
        return True

    async def leave():
        line = Line()
        events = await all_of(line, work, gone)
        over.set()
        await all_of(line, lambda tell: None)
        line.close()
        return events

    assert asyncio.run(leave()) == [{"place": 0}] and told == []
