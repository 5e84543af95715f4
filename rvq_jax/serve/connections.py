"""Connections: how long a client may take, and which one gives way when there are too many."""

import asyncio
import ipaddress
import socket
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class Timeouts:
    """Seconds that the server waits for others."""

    request: float = 10.0
    """For the head of a request to arrive whole, and as long again for its body."""
    stall: float = 30.0
    """For a client to take what was sent to it."""
    stop: float = 5.0
    """When it stops: for clients to take their last words, then for the generation to end."""


TIMEOUTS = Timeouts()
HEAD = 16_384  # bytes of a request before its body
HELD = 131_072  # bytes of an answer that the system holds for a client; Linux doubles it


def client_of(address: str) -> str:
    """Who an address belongs to: itself, or of IPv6 the network of 2^64 that one client has."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a test's, or a socket file
        return address
    found = getattr(found, "ipv4_mapped", None) or found
    return str(found if found.version == 4 else ipaddress.ip_network((found, 64), strict=False))


def protocol(most: int, timeouts: Timeouts) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol, of at most so many connections, none of which waits forever.

    uvicorn itself bounds idle time between requests and the size of heads; not the time of a head,
    nor that of a client to read. `watch` is to be called a few times per second.
    """
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Connection(H11Protocol):
        awaited: float | None = None  # since when a request, or the rest of one, is
        stalled: float | None = None  # since when the client has not taken all that was sent
        is_cut = False

        def connection_made(self, transport) -> None:
            # Writing pauses whenever a client has not taken all, but for what the system holds: by
            # itself that grows to megabytes, of which a slow reader must take a third in time.
            transport.set_write_buffer_limits(0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, HELD)
            super().connection_made(transport)
            self.who = client_of(self.client[0]) if self.client else ""
            self._note()
            if len(self.connections) > most:
                give_way(self.connections)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is h11.DONE and self.flow.read_paused:
                # A further request already: uvicorn stops to read, and would not see its client go.
                if len(self.conn.trailing_data[0]) > HEAD:
                    self.cut()
                else:
                    self.flow.resume_reading()
            self._note()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self.awaited = None  # a new time begins, also for the rest of a body that was refused
            self._note()

        def send_400_response(self, msg: str) -> None:
            if self.cycle is not None:  # whose answer there is no place for any more
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            try:
                super().send_400_response(msg)
            except h11.LocalProtocolError:  # within an answer
                self.cut()

        def pause_writing(self) -> None:
            super().pause_writing()
            self.stalled = self.loop.time()

        def resume_writing(self) -> None:
            super().resume_writing()
            self.stalled = None

        def _note(self) -> None:
            if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
                self.awaited = None
            elif self.awaited is None:
                self.awaited = self.loop.time()

        def cut(self) -> None:
            self.is_cut = True
            self.transport.abort()

        def watch(self) -> None:
            """Cuts the connection if its client took too long."""
            now = self.loop.time()
            # Until it has answered, the app itself waits for a body, and says when that is late.
            answered = self.cycle is None or self.cycle.response_complete
            awaits = self.awaited is not None and answered
            late = awaits and now - self.awaited > timeouts.request
            if late or (self.stalled is not None and now - self.stalled > timeouts.stall):
                self.cut()

    return Connection


def give_way(connections: set) -> None:
    """Cuts one connection: of the client with the most, the one that waits longest for a request.

    One that is not read comes next; those that are being answered, and read, are left.
    """
    living = [connection for connection in connections if not connection.is_cut]
    counts = Counter(connection.who for connection in living)

    def merit(connection) -> tuple[int, bool, float]:
        awaits = connection.awaited is not None
        since = connection.awaited if awaits else connection.stalled
        return counts[connection.who], awaits, -since

    idle = [x for x in living if x.awaited is not None or x.stalled is not None]
    if idle:  # the newest at least
        max(idle, key=merit).cut()
