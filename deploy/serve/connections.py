"""Connections of the server: each has to bring its request in time, and there are never too many for the process."""

import asyncio
import resource

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST = 512
"""Most connections, where the limit on open files allows as many."""
REFUSED = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)


class Connection(H11Protocol):
    """A connection that is closed when its next request does not begin within `seconds`.

    uvicorn itself waits for ever for a first request and for the end of its headers. A body has a limit of its own, in
    `deploy.serve.app`.
    """

    seconds = 10.0
    """From the connection, or the answer before, to the end of the headers."""
    most = MOST
    """A connection beyond it takes the place of the one that has waited longest."""
    _since = 0.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Begin to wait for a request, and make room."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > self.most:
            idle = [one for one in self.connections if isinstance(one, Connection) and one.is_idle()]
            longest = min(idle, key=lambda one: one._since)
            if longest is self:  # all others are at work
                transport.write(REFUSED)
                transport.close()
            else:
                longest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline, which would hold the connection in memory."""
        super().connection_lost(exc)
        if self._deadline is not None:
            self._deadline.cancel()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        super().on_response_complete()
        self._wait()

    def is_idle(self) -> bool:
        """Whether it is open, and nothing of a request or of an answer is under way."""
        busy = self.transport.is_closing() or self.transport.get_write_buffer_size() or self._in_work()
        return not busy

    def _in_work(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self, unsent: int = 0) -> None:
        self._since = self.loop.time()
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(self.seconds, self._expire, unsent)

    def _expire(self, unsent: int) -> None:
        """End the connection, unless it is in work, or its client still reads an answer."""
        left = self.transport.get_write_buffer_size()
        if self._in_work():
            return
        if left and left != unsent:
            self._wait(left)
        else:
            self.transport.abort()


def limited(seconds: float) -> tuple[type[Connection], int]:
    """The connections of a server.

    Args:
        seconds: longest time until a request begins.

    Returns:
        Their type, and how many may be accepted at once. Half of the files that the process may open are for
        connections, and three eighths for those that are accepted before others are closed.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        files = 2 * MOST
    kind = type("Limited", (Connection,), {"seconds": seconds, "most": min(MOST, files // 2)})
    return kind, min(128, files // 8)
