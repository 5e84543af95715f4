"""The waiting line: one generation at a time, first come first served, in a thread of its own."""

import asyncio
import base64
import contextlib
import logging
import threading
import time
import traceback
from collections import deque

import jax
import numpy as np

from rvq_jax.audio import io
from rvq_jax.errors import UserError, clipped, printable
from rvq_jax.serve.clips import clip
from rvq_jax.serve.requests import Limits, Refused, Request
from rvq_jax.typing import Audio

LOG = logging.getLogger(__name__)


class Job:
    """One generation asked for: its events in order, and whether anyone still wants them."""

    def __init__(self, request: Request, client: str):
        self.request, self.client = request, client
        self.place = 0  # in the line: 1 comes next, 0 has left it
        self.unwanted = threading.Event()
        # Bounded by the length of the clips, so a slow reader keeps nobody waiting.
        self.events: asyncio.Queue[dict | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def send(self, event: dict | None) -> None:
        """Adds an event, from any thread; None ends them."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
            self._loop.call_soon_threadsafe(self.events.put_nowait, event)


class Line:
    """Who is served and who waits; `start` starts its thread, `stop` ends it."""

    def __init__(self, model, limits: Limits):
        self.model, self.limits = model, limits
        self.rate = model.codec.config.rate
        self.channels = model.channels
        self.share = limits.waiting // 2 + 1  # of one client, the one that is served among them
        self.running: Job | None = None
        self.waiting: deque[Job] = deque()
        self._stopped = False
        self._changed = threading.Condition()
        # A daemon, as a process must be able to end while a program runs.
        self._thread = threading.Thread(target=self._work, name="generation", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Tells everyone that it is over; the thread ends with the chunk that it is at."""
        with self._changed:
            jobs = self._all()
            self.waiting.clear()
            self._stopped = True
            self._changed.notify()
        for job in jobs:
            job.unwanted.set()
            job.send({"event": "error", "error": "the server was stopped; start it again"})
            job.send(None)

    @property
    def lives(self) -> bool:
        """Whether its thread runs, without which nobody is served."""
        return self._thread.is_alive()

    def join(self, seconds: float) -> None:
        """Waits for the thread to end, for as long at most."""
        self._thread.join(seconds)

    def enter(self, request: Request, client: str = "") -> Job:
        """Takes a request in; raises Refused if too many wait. Called on the event loop."""
        job = Job(request, client)
        with self._changed:
            if self._stopped:
                raise Refused(503, "the server is stopping; start it again")
            own = sum(x.client == client and not x.unwanted.is_set() for x in self._all())
            if own >= self.share:
                raise Refused(429, f"{own} requests of yours are here already; wait for one to end")
            if self.running is None:
                self.running = job
                self._changed.notify()
            elif len(self.waiting) < self.limits.waiting:
                self.waiting.append(job)
                self._send_places()
            else:
                raise Refused(429, f"{len(self.waiting)} requests wait already; try again later")
        return job

    def leave(self, job: Job) -> None:
        """Gives up a job wherever it is; one that runs ends with the chunk that it is at."""
        job.unwanted.set()
        with self._changed:
            if job in self.waiting:
                self.waiting.remove(job)
                self._send_places()
        job.send(None)

    def _all(self) -> list[Job]:
        return [*([self.running] if self.running else []), *self.waiting]

    def _send_places(self) -> None:
        for place, job in enumerate(self.waiting, start=1):
            if job.place != place:
                job.place = place
                job.send({"event": "queued", "place": place})

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.running or self._stopped)
                if self._stopped:
                    return
            job = self.running
            last = self._generate(job)
            # Before its client hears the end: the next request of that client finds the line free.
            with self._changed:
                self.running = self.waiting.popleft() if self.waiting else None
                self._send_places()
            if last:
                job.send(last)
            job.send(None)

    def _generate(self, job: Job) -> dict | None:
        """Tells of the start and of each chunk; returns the last event, None if unwanted."""
        try:
            *seeds, final = range(job.request.seed, job.request.seed + job.request.takes)
            for seed in seeds:
                if (last := self._stream(job, seed)) is None or job.unwanted.is_set():
                    return None
                job.send(last)
            return self._stream(job, final)
        except UserError as error:
            text = str(error)
        # Whatever it is, it is this request's: Rust's panics, as of a tokenizer, are no Exception.
        except BaseException as error:
            LOG.exception("generation failed")
            # Not str(error), which may raise as well.
            reason = clipped("".join(traceback.format_exception_only(error)).strip(), 200)
            text = f"generation failed ({reason}); the log says where"
        return {"event": "error", "error": " ".join(printable(text).split())}

    def _stream(self, job: Job, seed: int) -> dict | None:
        """One clip, of this seed; returns its last event, None if unwanted."""
        request = job.request
        job.send(
            {
                "event": "start",
                "seed": seed,
                "rate": self.rate,
                "channels": self.channels,
                "samples": round((request.seconds or self.limits.seconds) * self.rate),
            }
        )
        start, done = time.monotonic(), 0
        chunks, more = clip(self.model, request, jax.random.key(seed), self.limits.seconds)
        with contextlib.closing(chunks):
            for chunk in chunks:
                if job.unwanted.is_set():
                    return None
                audio_SC = checked(chunk, self.channels)
                done += len(audio_SC)
                text = base64.b64encode(io.pcm16(audio_SC)).decode()
                job.send({"event": "audio", "pcm": text})
        seconds = round(time.monotonic() - start, 3)
        return {"event": "done", "samples": done, "seconds": seconds, **more}


def checked(chunk: Audio, channels: int) -> np.ndarray:
    """`[S, C]` of a chunk `[1, S, C]`; raises ValueError for another shape, NaN or infinity."""
    audio_BSC = np.asarray(chunk, np.float32)
    if audio_BSC.ndim != 3 or audio_BSC.shape[::2] != (1, channels):
        raise ValueError(f"a chunk of audio is {audio_BSC.shape}, not (1, samples, {channels})")
    if not np.isfinite(audio_BSC).all():
        raise ValueError("the model gave samples that are NaN or infinite")
    return audio_BSC[0]
