"""A server of a model whose clips are sines, as tests of the web page use it."""

import contextlib
import http.client
import json
import socket
import threading
from types import SimpleNamespace

import numpy as np

from rvq_jax.serve import Limits, make_app
from rvq_jax.serve.connections import TIMEOUTS, Timeouts
from rvq_jax.serve.server import listen, make_server

RATE = 8000
CHUNK = 800  # samples
WAIT = 30  # seconds, for what should take none


class Call:
    """One clip asked of a model: how, how much of it was made, and how that ended."""

    def __init__(self, prompts, seconds, key, **options):
        self.prompts, self.seconds, self.key, self.options = prompts, seconds, key, options
        self.chunks = 0
        self.end = ""
        self.ended = threading.Event()


class Sines:
    """A model that makes each chunk when `steps` is released, or at once if `steps` is None.

    spoil: what a chunk becomes, given its number and samples; may raise.
    """

    def __init__(self, channels: int = 1, steps: threading.Semaphore | None = None, spoil=None):
        self.codec = SimpleNamespace(config=SimpleNamespace(rate=RATE))
        self.channels = channels
        self.steps, self.spoil = steps, spoil or (lambda number, chunk: chunk)
        self.calls: list[Call] = []
        self.called = threading.Condition()

    def audio(self, seconds: float) -> np.ndarray:
        """A clip `[1, S, C]`; it goes a little beyond [-1, 1]."""
        time = np.arange(round(seconds * RATE))[:, None] / RATE
        channels = np.arange(1, self.channels + 1)
        return (1.1 * np.sin(2 * np.pi * 220 * channels * time))[None].astype(np.float32)

    def pcm(self, seconds: float) -> bytes:
        """The same as a client should get it."""
        clipped = np.clip(self.audio(seconds)[0], -1, 1)
        return np.round(clipped * 32767).astype("<i2").tobytes()

    def stream(
        self, prompts, seconds, key, *, guidance_scale=3.0, temperature=1.0, top_k=250, top_p=0.0
    ):
        options = {
            "guidance_scale": guidance_scale,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
        }
        call = Call(prompts, seconds, key, **options)
        with self.called:
            self.calls.append(call)
            self.called.notify_all()
        try:
            audio = self.audio(seconds)
            for first in range(0, audio.shape[1], CHUNK):
                if self.steps:
                    assert self.steps.acquire(timeout=WAIT)
                chunk = self.spoil(call.chunks, audio[:, first : first + CHUNK])
                call.chunks += 1
                yield chunk
            call.end = "whole"
        except GeneratorExit:
            call.end = "closed"
            raise
        except BaseException:
            call.end = "raised"
            raise
        finally:
            call.ended.set()

    def call(self, number: int) -> Call:
        """A call, once it is made."""
        with self.called:
            assert self.called.wait_for(lambda: len(self.calls) > number, WAIT)
        return self.calls[number]


class Place:
    """Where a server listens, and what can be asked of it."""

    def __init__(self, server, port: int):
        self.server, self.port = server, port

    def ask(self, method: str, path: str, body=None, headers=(), source="127.0.0.1", **options):
        """The connection and the response, whose body is still to be read.

        source: address that it comes from; on Linux all of 127.0.0.0/8 are this machine's.
        """
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=WAIT, source_address=(source, 0)
        )
        connection.request(method, path, body, dict(headers), **options)
        return connection, connection.getresponse()

    def answer(self, *words, **options) -> tuple[int, dict]:
        """Status and JSON of a short answer."""
        connection, response = self.ask(*words, **options)
        with contextlib.closing(connection):
            return response.status, json.loads(response.read())

    def generate(
        self, prompt: str = "a sine", seconds: float | None = 0.3, source="127.0.0.1", **fields
    ) -> "Stream":
        """seconds: left out for None."""
        length = {} if seconds is None else {"seconds": seconds}
        body = json.dumps({"prompt": prompt, **length, **fields})
        return Stream(*self.ask("POST", "/generate", body, source=source))

    def health(self) -> dict:
        return self.answer("GET", "/health")[1]


class Stream:
    """The events of one answer, one after another."""

    def __init__(self, connection, response):
        self.connection, self.response = connection, response
        assert response.status == 200, response.read()

    def __iter__(self):
        return self

    def __next__(self) -> dict:
        if line := self.response.readline():
            return json.loads(line)
        self.connection.close()
        raise StopIteration

    def drop(self) -> None:
        """Goes away, as a closed tab does."""
        self.response.close()
        self.connection.close()


@contextlib.contextmanager
def raw(place, text: bytes, source: str = "127.0.0.1", **options):
    """A connection on which bytes were sent as they are, but for PORT.

    options: of the socket, such as SO_RCVBUF.
    """
    with socket.socket() as sock:
        for name, value in options.items():
            sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
        sock.settimeout(WAIT)
        sock.bind((source, 0))
        sock.connect(("127.0.0.1", place.port))
        sock.sendall(text.replace(b"PORT", str(place.port).encode()))
        yield sock


@contextlib.contextmanager
def serving(
    model,
    limits: Limits | None = None,
    host: str = "127.0.0.1",
    timeouts: Timeouts = TIMEOUTS,
    name: str = "",
):
    """A Place that serves a model on a free port until the block ends."""
    server = make_server(make_app(model, limits or Limits(), host, timeouts, name))
    with listen("127.0.0.1", 0) as sock:
        place = Place(server, sock.getsockname()[1])
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        place.thread = thread
        thread.start()
        try:
            yield place
        finally:
            server.should_exit = True
            thread.join(WAIT)
            assert not thread.is_alive()
