"""An event loop in a thread, for connections that are asynchronous inside and not outside.

It keeps turning between two calls, so that keepalives go out and a board's own questions whether
we are still there are answered however long the caller thinks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")
_LOG: Final = logging.getLogger(__name__)
_STOP_S: Final = 5.0


class EventLoop:
    """A running event loop; each piece of work is responsible for its own deadline."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Let it run, and go on."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def finish(self, work: Coroutine[Any, Any, T], *, limit_s: float) -> T:
        """Let it run and wait for its end; an interrupt cancels it.

        Raises:
            TimeoutError: It did not end by itself within the limit.
        """
        future = self.start(work)
        try:
            return future.result(limit_s)
        except BaseException:  # an interrupt of the main thread, too
            future.cancel()
            raise


@contextmanager
def event_loop() -> Iterator[EventLoop]:
    """An event loop that stops at the end, with whatever still runs on it."""
    loop = asyncio.new_event_loop()
    # Of a connection that fails, one error reaches the caller; asyncssh has it in ten tasks more.
    loop.set_exception_handler(lambda _, context: _LOG.debug("after a failure: %s", context))
    thread = Thread(target=loop.run_forever, name="edgeship-transport", daemon=True)
    thread.start()
    running = EventLoop(loop)
    try:
        yield running
    finally:
        running.start(_cancel_others()).add_done_callback(
            lambda _: loop.call_soon_threadsafe(loop.stop)
        )
        thread.join(_STOP_S)
        if not thread.is_alive():
            loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=_STOP_S / 2)
