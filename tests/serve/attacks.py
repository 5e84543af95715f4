"""Attacks a real server in every way of the tests at once, then asks 10,000 things of it.

Command:  python tests/serve/attacks.py
Time:     about four minutes on two busy cores
Expect:   attacks.json: one process from the first to the last request, the same audio during and
          after each attack, memory that stays, an end within its time
"""

import argparse
import base64
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import small_folders
from serving import Place, raw
from test_serve_attacks import CLIP, HELD, POST
from test_serve_bytes import CASES
from tqdm import tqdm

from rvq_jax import cli, files, machine
from rvq_jax.serve.connections import TIMEOUTS
from rvq_jax.systems.musicgen import MusicGen

HERE = Path(__file__).parent
GOOD, BAD = "127.0.0.2", "127.0.0.1"
PAGE = b"GET / HTTP/1.1\r\nHost: localhost:PORT\r\n\r\n"
KINDS = "good", "bad", "strange", "aborted", "panic", "file"
LONG = CLIP.replace(b" 5}", b"10}")


class Panic(BaseException):
    """As pyo3's PanicException."""


def child(folder: str) -> int:
    """The command itself, of a model that dies of the prompt 'panic' as it reads it."""
    encode = MusicGen.encode_conditions

    def read(self, captions, *words):
        if "panic" in captions:
            raise Panic("called `Option::unwrap()` on a `None` value")
        return encode(self, captions, *words)

    MusicGen.encode_conditions = read
    return cli.main(["serve", "--model", folder, "--port", "0"])


def sound(place: Place, source: str, seed: int = 3) -> bytes:
    """The samples of one clip; raises AssertionError unless it comes whole."""
    events = list(place.generate("slow", 0.3, source=source, seed=seed))
    assert events[-1]["event"] == "done", events[-1]
    return b"".join(base64.b64decode(e["pcm"]) for e in events if e["event"] == "audio")


def memory(pid: int) -> dict:
    """Megabytes, threads and open files of a process."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return {
        "rss_mb": round(int(status["VmRSS"].split()[0]) / 1024, 1),
        "threads": int(status["Threads"]),
        "files": len(os.listdir(f"/proc/{pid}/fd")),
    }


# The attacks: each is held while others are served.


@contextlib.contextmanager
def panics(place: Place):
    for _ in range(20):
        *_, last = place.generate("panic", source=BAD)
        assert last["event"] == "error" and "Panic" in last["error"]
    yield


@contextlib.contextmanager
def half_sent(place: Place, count: int = 130):
    """From one address, of each kind in turn; some go on with a byte at times."""
    over = threading.Event()
    with contextlib.ExitStack() as stack:
        texts = list(HELD.values())
        socks = [stack.enter_context(raw(place, texts[i % len(texts)], BAD)) for i in range(count)]

        def trickle() -> None:
            while not over.wait(0.2):
                for sock in socks:
                    with contextlib.suppress(OSError):
                        sock.sendall(b"a")

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@contextlib.contextmanager
def never_read(place: Place):
    """Clips, and pages by the hundred on one connection."""
    with contextlib.ExitStack() as stack:
        for i in range(20):
            text = POST + CLIP.replace(b" 5}", b".5}") if i % 10 == 0 else PAGE * 320
            stack.enter_context(raw(place, text, BAD, SO_RCVBUF=4096))
        time.sleep(5)  # until what is not read stands still
        yield


@contextlib.contextmanager
def takes_the_line(place: Place):
    """Forty clips, long ones, from one address: of these half of the line is taken."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(raw(place, POST + LONG, BAD)) for _ in range(40)]
        answers = [sock.recv(12) for sock in socks]
        assert sorted(set(answers)) == [b"HTTP/1.1 200", b"HTTP/1.1 429"]
        assert answers.count(b"HTTP/1.1 200") == place.health()["limits"]["waiting"] // 2 + 1
        yield


ATTACKS = [panics, half_sent, never_read, takes_the_line]


# Ten thousand requests.


def ask(place: Place, number: int) -> str:
    """One request of a kind drawn by its number; what it should give, checked."""
    draw = random.Random(number)
    kind = draw.choices(KINDS, [30, 25, 15, 20, 5, 5])[0]
    source = f"127.0.0.{10 + number % 8}"
    if kind == "good":
        events = list(place.generate("slow", 0.1, source=source, seed=draw.randrange(9)))
        assert events[-1]["event"] == "done", events
    elif kind == "panic":
        assert list(place.generate("panic", source=source))[-1]["event"] == "error"
    elif kind == "file":
        begin = draw.choice([b"RIFF", b"fLaC", b"OggS", b"ID3\4", b"FORM", b".snd", b""])
        data = base64.b64encode(begin + draw.randbytes(draw.randrange(1, 5000))).decode()
        *_, last = place.generate("slow", 0.1, source=source, **{"continue": data})
        assert last["event"] == "error" and "failed" not in last["error"], last
    elif kind == "bad":
        bodies = ["", "[" * 5000, '{"prompt": ""}', '{"prompt": "a", "seconds": 1e999}', "\ud800"]
        body = draw.choice(bodies).encode("utf-8", "surrogatepass")
        assert place.answer("POST", "/generate", body, source=source)[0] in (400, 422)
    elif kind == "strange":
        text = draw.choice(list(CASES.values()))[0]
        with contextlib.suppress(ConnectionError), raw(place, text, source) as sock:
            sock.recv(1000)
    else:
        text = POST + CLIP
        with contextlib.suppress(ConnectionError), raw(place, text, source) as sock:
            if draw.random() < 0.5:
                sock.recv(draw.randrange(1, 5000))
    return kind


def many(place: Place, count: int) -> dict:
    counts = dict.fromkeys(KINDS, 0)
    with ThreadPoolExecutor(8) as pool:
        kinds = pool.map(lambda number: ask(place, number), range(count))
        for kind in tqdm(kinds, total=count, unit="request", mininterval=10):
            counts[kind] += 1
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=HERE / "attacks.json")
    parser.add_argument("--child", help="serve this folder, as a process under attack")
    options = parser.parse_args()
    if options.child:
        sys.exit(child(options.child))
    began, found = time.perf_counter(), {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        small_folders.own().save(Path(folder) / "model")
        log = stack.enter_context(open(Path(folder) / "log", "w+"))
        command = [sys.executable, __file__, "--child", str(Path(folder) / "model")]
        process = stack.enter_context(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        )
        stack.callback(process.kill)
        address = process.stdout.readline().split()[0]
        place = Place(None, int(address.rstrip("/").rpartition(":")[2]))
        expected = sound(place, GOOD)

        def check() -> float:
            """Seconds until a good client, of another address and of the same, has its clip."""
            start = time.monotonic()
            assert sound(place, GOOD) == expected
            assert place.health()["status"] == "ok" and process.poll() is None
            return round(time.monotonic() - start, 2)

        many(place, 500)  # what is compiled once is no growth
        found["before"], found["attacks"] = memory(process.pid), {}
        for attack in ATTACKS:
            with attack(place):
                during = [check() for _ in range(3)]
            found["attacks"][attack.__name__] = {"seconds_during": during, "seconds_after": check()}
            print(attack.__name__, found["attacks"][attack.__name__], flush=True)
        found["after_attacks"] = memory(process.pid)
        start = time.monotonic()
        found["requests"] = many(place, options.requests)
        found["requests_seconds"] = round(time.monotonic() - start, 1)
        check()
        found["after_requests"] = memory(process.pid)
        for attack in (panics, half_sent, takes_the_line, never_read):
            stack.enter_context(attack(place))
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        found["stop_seconds"], found["exit_code"] = round(time.monotonic() - start, 2), code
        assert code == 128 + signal.SIGTERM and found["stop_seconds"] < 2 * TIMEOUTS.stop + 1, found
        log.seek(0)
        lines = log.read().splitlines()
        raised = [line for line in lines if line and not line[0].isspace() and ": " in line]
        found["log"] = {"lines": len(lines), "errors": sorted({line[:80] for line in raised})}
    files.write_json(options.out, {**found, **machine.provenance(began)})
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
