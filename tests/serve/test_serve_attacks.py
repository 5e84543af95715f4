"""The server under attack: others are served meanwhile, and it stops when it is to."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from serving import WAIT, Place, Sines, raw, serving

from rvq_jax.errors import UserError
from rvq_jax.serve import Limits
from rvq_jax.serve.connections import Timeouts, client_of

OTHER = "127.0.0.2"
POST = b"POST /generate HTTP/1.1\r\nHost: localhost:PORT\r\n"
GET = b"GET /health HTTP/1.1\r\nHost: localhost:PORT\r\n"
CLIP = b'Content-Length: 34\r\n\r\n{"prompt": "a sine", "seconds": 5}'
UNREAD = POST + b'Content-Length: 35\r\n\r\n{"prompt": "a sine", "seconds": 60}'


def connections(place) -> set:
    return place.server.server_state.connections


def eventually(holds, seconds: float = WAIT) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def serves(place, source: str = "127.0.0.1") -> bool:
    events = list(place.generate(seconds=0.1, source=source))
    return place.health()["status"] == "ok" and events[-1]["event"] == "done"


# A generation that fails.


class Panic(BaseException):
    """As pyo3's PanicException, of which a tokenizer may die."""


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("no words")


@pytest.fixture(scope="module")
def weak():
    """One server of a model that fails as it is told to: none of it may harm the next request."""
    model = Sines()
    with serving(model) as place:
        place.model = model
        yield place


FAILURES = [Panic("called `Option::unwrap()`"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()]
FAILURES += [
    MemoryError(),
    RecursionError("deep"),
    StopIteration(),
    Unspeakable(),
    OSError(28, "x"),
]
FAILURES += [ValueError("a\x1b[2J\nb\u2028\ud800"), ValueError("x" * 10**6), UserError("y" * 10**6)]
FAILURES += [BaseExceptionGroup("many", [Panic("a"), ValueError("b")]), SyntaxError("no code")]


@pytest.mark.parametrize("where", ["called", "midway"])
@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_whatever_a_generation_raises_is_told_to_its_client_alone(weak, monkeypatch, error, where):
    def fail(*words, **options):
        raise error

    # Of a list: pytest itself must not hear of the error when a test ends.
    with monkeypatch.context() as patched:
        patched.setattr("rvq_jax.serve.queue.LOG.exception", lambda *words: None)
        patched.setattr(weak.model, "stream" if where == "called" else "spoil", fail)
        *_, last = weak.generate()
    assert last["event"] == "error"
    assert last["error"].isprintable() and len(last["error"]) < 300
    assert serves(weak)


def test_health_is_not_ok_when_nobody_can_be_served():
    with serving(Sines()) as place:
        assert serves(place)
        line = place.server.config.app.state.line
        line.stop()
        line.join(WAIT)
        status, answer = place.answer("GET", "/health")
    assert (status, answer["status"]) == (503, "failed")


# Connections that hold a place and ask for nothing.

HELD = {
    "nothing": b"",
    "half a line": b"POST /gen",
    "half a head": POST,
    "half a body": POST + b'Content-Length: 50\r\n\r\n{"prompt": ',
    "no first chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n",
    "half a chunk": POST + b"Transfer-Encoding: chunked\r\n\r\nff\r\n{",
    "a body that nobody reads": GET + b"Content-Length: 50\r\n\r\n{",
    "kept alive": GET + b"\r\n",
    "a websocket": GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
}


@pytest.mark.parametrize("text", HELD.values(), ids=HELD)
def test_more_connections_than_there_is_room_for_keep_nobody_out(monkeypatch, text):
    """From one address: of those that ask for nothing the oldest give way."""
    monkeypatch.setattr("rvq_jax.serve.server.CONNECTIONS", 4)
    patient = serving(Sines(), Limits(waiting=1), timeouts=Timeouts(request=2 * WAIT))
    with patient as place, contextlib.ExitStack() as stack:
        held = [stack.enter_context(raw(place, text)) for _ in range(20)]
        eventually(lambda: len(connections(place)) == 5, seconds=4)
        assert serves(place)
        assert serves(place, OTHER)
        with contextlib.suppress(ConnectionError):
            while held[0].recv(65_536):  # the end of the oldest
                pass


def test_who_is_served_keeps_its_connection(monkeypatch):
    """However many come, and the connections of others before those of the many."""
    monkeypatch.setattr("rvq_jax.serve.server.CONNECTIONS", 4)
    model = Sines(steps=threading.Semaphore(0))
    with serving(model, Limits(waiting=1)) as place, contextlib.ExitStack() as stack:
        stream = place.generate(seconds=0.1)
        waits = place.generate(seconds=0.1, source=OTHER)
        idle = stack.enter_context(raw(place, b"GET /hea", OTHER))
        for _ in range(20):
            stack.enter_context(raw(place, b"GET /hea"))
        eventually(lambda: len(connections(place)) == 5)
        idle.sendall(b"lth HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % place.port)
        assert idle.recv(65_536).startswith(b"HTTP/1.1 200")
        model.steps.release(2)
        assert [*stream][-1]["event"] == [*waits][-1]["event"] == "done"


SLOW = {name: text for name, text in HELD.items() if name not in ("kept alive", "a websocket")}
SLOW["the rest of a body that is too long"] = POST + b"Content-Length: 99999999\r\n\r\n{"


@pytest.mark.parametrize("text", SLOW.values(), ids=SLOW)
def test_a_request_that_trickles_is_cut_off(text):
    """A byte now and then is no way to stay."""
    with serving(Sines(), timeouts=Timeouts(request=0.1)) as place, raw(place, text) as sock:
        eventually(lambda: connections(place))
        start = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while connections(place):
                sock.sendall(b"a")
                time.sleep(0.02)
                assert time.monotonic() < start + WAIT / 3
        eventually(lambda: not connections(place))


# Clients that do not read.


def test_a_client_that_never_reads_is_cut_off_and_its_place_free():
    timeouts = Timeouts(stall=0.2)
    with serving(Sines(2), Limits(seconds=60), timeouts=timeouts) as place:
        with raw(place, UNREAD, SO_RCVBUF=4096):
            eventually(lambda: connections(place))
            eventually(lambda: not connections(place))
            assert serves(place)


def test_a_client_that_reads_slowly_gets_all():
    """For longer than the server waits for one that does not read; then the model takes long."""
    model = Sines(2, threading.Semaphore(599))
    all_but_one = 4 / 3 * len(model.pcm(59.9))
    with serving(model, Limits(seconds=60), timeouts=Timeouts(stall=0.5)) as place:
        text = UNREAD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        start, answer, rest = time.monotonic(), b"", 0.0
        with raw(place, text, SO_RCVBUF=65_536) as sock:
            while piece := sock.recv(100_000):
                answer += piece
                time.sleep(0.05)
                if len(answer) > all_but_one and not rest:
                    rest = time.monotonic() - start
                    time.sleep(1)
                    model.steps.release()
    assert rest > 2 * 0.5
    assert answer.count(b'"audio"') == 600 and b'"done"' in answer


def test_a_client_that_leaves_further_bytes_behind_leaves_the_line():
    """uvicorn stops to read when a further request comes, and would not see the end."""
    model = Sines(steps=threading.Semaphore(0))
    with serving(model) as place:
        first = place.generate(seconds=0.1)
        with raw(place, POST + CLIP) as sock:
            eventually(lambda: place.health()["waiting"] == 1)
            sock.sendall(GET)
        eventually(lambda: place.health()["waiting"] == 0)
        with raw(place, POST + CLIP + GET + b"a" * 100_000) as sock:  # more than it will hold
            with contextlib.suppress(ConnectionError):
                while sock.recv(65_536):
                    pass
        eventually(lambda: place.health()["waiting"] == 0)
        model.steps.release()
        assert [*first][-1]["event"] == "done"


# One client that wants everything.


def test_one_client_takes_half_of_the_line_at_most():
    model = Sines(steps=threading.Semaphore(0))
    with serving(model, Limits(waiting=3)) as place:
        own = [place.generate(seconds=0.1) for _ in range(2)]
        body = json.dumps({"prompt": "x", "seconds": 0.1})
        for headers in ({}, {"X-Forwarded-For": "192.0.2.7"}, {"Forwarded": "for=192.0.2.7"}):
            connection, response = place.ask("POST", "/generate", body, headers)
            with contextlib.closing(connection):
                answer = json.loads(response.read())
            assert response.status == 429 and int(response.headers["retry-after"]) > 0
            assert "2 requests of yours" in answer["error"]
        others = [place.generate(seconds=0.1, source=OTHER) for _ in range(2)]
        own.pop().drop()
        eventually(lambda: place.health()["waiting"] == 2)
        own.append(place.generate(seconds=0.1))
        model.steps.release(5)
        for stream in own + others:
            assert [*stream][-1]["event"] == "done"


def test_a_client_is_an_address_or_a_network_of_ipv6():
    def same(*addresses: str) -> bool:
        return len({client_of(address) for address in addresses}) == 1

    assert same("192.0.2.7", "::ffff:192.0.2.7") and not same("192.0.2.7", "192.0.2.8")
    assert same("2001:db8::7", "2001:db8:0:0:ffff::1") and not same("2001:db8::7", "2001:db8:0:1::")
    assert same("fe80::1%eth0", "fe80::2%eth1") and client_of("no address") == "no address"


# The end.


@pytest.mark.parametrize(
    ("text", "stop"),
    [*((text, WAIT) for text in HELD.values()), (UNREAD, 0.3)],
    ids=[*HELD, "a clip that is not read"],
)
def test_nobody_keeps_it_from_stopping(caplog, text, stop):
    """Who asks for nothing is not waited for; who does not read, no longer than it may."""
    with serving(Sines(2), Limits(seconds=60), timeouts=Timeouts(stop=stop)) as place:
        with raw(place, text, SO_RCVBUF=4096), raw(place, text, SO_RCVBUF=4096):
            eventually(lambda: connections(place))
            eventually(lambda: text != UNREAD or any(x.stalled for x in connections(place)))
            start = time.monotonic()
            place.server.should_exit = True
            place.thread.join(WAIT)
    assert time.monotonic() - start < 5
    assert caplog.records == []


def test_a_generation_that_does_not_end_keeps_it_no_longer_than_it_may():
    """As while it compiles; those who wait are told."""
    model = Sines(steps=threading.Semaphore(0))
    with serving(model, timeouts=Timeouts(stop=0.2)) as place:
        streams = [place.generate(seconds=5) for _ in range(3)]
        model.call(0)
        start = time.monotonic()
        place.server.should_exit = True
        for stream in streams:
            assert "server was stopped" in [*stream][-1]["error"]
        place.thread.join(WAIT)
        assert time.monotonic() - start < 5
        line = place.server.config.app.state.line
        assert line.lives
        model.steps.release()
        line.join(WAIT)
    assert not line.lives and len(model.calls) == 1


PROCESS = """
import threading
from serving import Sines
from rvq_jax import serve
from rvq_jax.serve.connections import Timeouts
model = Sines(2, threading.Semaphore(2))
timeouts = Timeouts(stop=0.5)
serve.serve(model, port=0, announce=lambda line: print(line, flush=True), timeouts=timeouts)
"""


def test_a_process_ends_at_sigterm_whatever_goes_on():
    """A generation that does not end, others that wait, one that is not read, half a request."""
    command = [sys.executable, "-c", PROCESS]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=env, **pipes) as process, contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        place = Place(None, int(process.stdout.readline().rstrip("/\n").rpartition(":")[2]))
        runs, waits = place.generate(seconds=5), place.generate(seconds=5)
        assert [next(runs)["event"] for _ in range(3)] == ["start", "audio", "audio"]
        for text in HELD.values():
            stack.enter_context(raw(place, text, SO_RCVBUF=4096))
        start = time.monotonic()
        process.terminate()
        assert "server was stopped" in [*runs][-1]["error"] + [*waits][-1]["error"]
        out, err = process.communicate(timeout=WAIT)
        assert time.monotonic() - start < 5
    assert (process.returncode, out, err) == (-signal.SIGTERM, "", "")
