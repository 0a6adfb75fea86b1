"""The engine's channels find a message that asyncio has not been told of."""

import asyncio
from queue import Empty

import papermill  # noqa: F401  (it imports the engine itself, and has to come first)
import pytest
import zmq
import zmq.asyncio
from jupyter_client.session import Session

from fly64lib.notebook import papermill_engine
from fly64lib.notebook.papermill_engine import WatchedChannel


def test_a_message_that_a_poll_has_missed_is_found_a_moment_later(monkeypatch):
    monkeypatch.setattr(papermill_engine, "_LOOK_S", 0.05)

    async def talk() -> tuple[str, int]:
        context, session = zmq.asyncio.Context(), Session(key=b"k")
        ours, theirs = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        theirs.bind("inproc://test")
        ours.connect("inproc://test")
        await theirs.send_multipart(session.serialize(session.msg("execute_reply")))
        channel, polls = WatchedChannel(ours, session, asyncio.get_running_loop()), []
        poll = ours.poll

        async def missing(timeout: float) -> int:
            polls.append(timeout)
            return 0 if len(polls) < 3 else await poll(timeout)

        monkeypatch.setattr(channel.socket, "poll", missing, raising=False)
        found = (await channel.get_msg(timeout=None))["msg_type"]
        with pytest.raises(Empty):
            await channel.get_msg(timeout=0.12)
        ours.close()
        theirs.close()
        context.term()
        return found, len(polls)

    found, polls = asyncio.run(talk())
    assert found == "execute_reply" and polls >= 5
