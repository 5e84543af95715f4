"""The server of the web page: who is served, in what order, what they get, and who is not."""

import base64
import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
import urllib.request

import jax
import numpy as np
import pytest
from serving import RATE, WAIT, Sines, serving

from rvq_jax.errors import UserError
from rvq_jax.serve import Limits, make_app, serve
from rvq_jax.serve.server import listen, load_page, make_server

SMALL = Limits(prompt=50, seconds=5.0, body=600, waiting=2)


def steps() -> threading.Semaphore:
    """Chunks to be released one by one."""
    return threading.Semaphore(0)


def sound(events: list[dict]) -> bytes:
    return b"".join(base64.b64decode(e["pcm"]) for e in events if e["event"] == "audio")


def eventually(holds) -> None:
    end = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


# What a client gets.


@pytest.mark.parametrize("channels", [1, 2])
def test_a_clip_arrives_bit_for_bit_with_its_start_and_end(channels):
    model = Sines(channels)
    with serving(model) as place:
        events = list(place.generate(seconds=0.35))
    start = {"event": "start", "seed": 0, "rate": RATE, "channels": channels, "samples": 2800}
    assert events[0] == start
    assert [e["event"] for e in events[1:]] == ["audio"] * 4 + ["done"]
    assert sound(events) == model.pcm(0.35)
    assert events[-1]["samples"] == 2800 and events[-1]["seconds"] >= 0
    assert model.calls[0].end == "whole"


def test_every_field_reaches_the_model_and_left_out_ones_have_defaults():
    model = Sines()
    fields = dict(guidance_scale=2, temperature=0.5, top_k=7, top_p=0.9, seed=2**32 - 1)
    with serving(model, SMALL) as place:
        list(place.generate("ein Klavier 🎹", 1, **fields))
        list(place.generate())
        conditions = place.health()["defaults"]
    first, second = model.calls
    seed = fields.pop("seed")
    assert first.prompts == ["ein Klavier 🎹"] and first.seconds == 1 and first.options == fields
    np.testing.assert_array_equal(
        jax.random.key_data(first.key), jax.random.key_data(jax.random.key(seed))
    )
    assert conditions == {"seconds": 5.0, "seed": 0, "takes": 1, **second.options}


def test_chunks_arrive_while_the_rest_is_generated():
    """Each before the model is let on to the next."""
    model = Sines(steps=steps())
    with serving(model) as place:
        stream = place.generate(seconds=0.3)
        assert next(stream)["event"] == "start"
        for number in range(1, 4):
            model.steps.release()
            assert next(stream)["event"] == "audio"
            assert model.calls[0].chunks == number
        assert [e["event"] for e in stream] == ["done"]


def test_health_tells_state_and_limits():
    model = Sines(2, steps())
    with serving(model, SMALL, name="sines") as place:
        idle = place.health()
        one, two = place.generate(seconds=0.1), place.generate(seconds=0.1)
        busy = place.health()
        model.steps.release(2)
        assert len([*one, *two]) == 7
    assert idle["status"] == "ok" and not idle["running"] and idle["waiting"] == 0
    assert busy["running"] and busy["waiting"] == 1
    assert (idle["rate"], idle["channels"]) == (RATE, 2)
    bounds = {"prompt": 50, "seconds": 5.0, "body": 600, "waiting": 2}
    assert idle["limits"] == bounds | {"audio": 2_000_000, "takes": 4}
    assert idle["name"] == "sines" and idle["system"] == "Sines" and idle["inputs"] == []


def test_takes_come_one_after_another_each_as_its_own_seed_gives_it():
    model = Sines()
    with serving(model) as place:
        events = list(place.generate(seconds=0.1, seed=2**32 - 3, takes=3))
    assert [e["event"] for e in events] == 3 * ["start", "audio", "done"]
    assert [e["seed"] for e in events[::3]] == [2**32 - 3, 2**32 - 2, 2**32 - 1]
    for seed, call in enumerate(model.calls, 2**32 - 3):
        np.testing.assert_array_equal(
            jax.random.key_data(call.key), jax.random.key_data(jax.random.key(seed))
        )


def test_a_client_that_goes_away_gives_up_its_further_takes():
    model = Sines(steps=steps())
    with serving(model) as place:
        gone = place.generate(seconds=0.1, takes=4)
        model.steps.release()
        assert [next(gone)["event"] for _ in range(4)] == ["start", "audio", "done", "start"]
        job = place.server.config.app.state.line.running
        gone.drop()
        assert job.unwanted.wait(WAIT)
        model.steps.release(2)
        assert list(place.generate(seconds=0.1))[-1]["event"] == "done"
    assert len(model.calls) == 3


# The line.


def test_requests_are_served_one_at_a_time_in_order_and_told_their_place():
    model = Sines(steps=steps())
    with serving(model) as place:
        streams = [place.generate(f"clip {i}", 0.1) for i in range(3)]
        assert next(streams[0])["event"] == "start"
        assert next(streams[1]) == {"event": "queued", "place": 1}
        assert next(streams[2]) == {"event": "queued", "place": 2}
        assert model.call(0) and len(model.calls) == 1
        model.steps.release()
        assert [e["event"] for e in streams[0]] == ["audio", "done"]
        assert next(streams[2]) == {"event": "queued", "place": 1}
        assert next(streams[1])["event"] == "start"
        model.steps.release(2)
        assert [e["event"] for e in streams[1]] == ["audio", "done"]
        assert [e["event"] for e in streams[2]] == ["start", "audio", "done"]
    assert [call.prompts for call in model.calls] == [["clip 0"], ["clip 1"], ["clip 2"]]


def test_a_client_that_goes_away_stops_its_generation_within_a_chunk():
    model = Sines(steps=steps())
    with serving(model) as place:
        gone = place.generate(seconds=5)
        model.steps.release()
        assert [next(gone)["event"] for _ in range(2)] == ["start", "audio"]
        waits = place.generate("next", 0.1)
        assert next(waits)["event"] == "queued"
        job = place.server.config.app.state.line.running
        gone.drop()
        assert job.unwanted.wait(WAIT)
        model.steps.release()
        assert model.calls[0].ended.wait(WAIT)
        assert model.calls[0].end == "closed" and model.calls[0].chunks == 2
        model.steps.release()
        assert [e["event"] for e in waits] == ["start", "audio", "done"]


def test_a_client_that_goes_away_leaves_the_line():
    model = Sines(steps=steps())
    with serving(model) as place:
        first, gone, last = (place.generate(name, 0.1) for name in ("first", "gone", "last"))
        assert next(gone)["place"] == 1 and next(last)["place"] == 2
        gone.drop()
        assert next(last) == {"event": "queued", "place": 1}
        model.steps.release(2)
        assert [*first][-1]["event"] == [*last][-1]["event"] == "done"
    assert [call.prompts for call in model.calls] == [["first"], ["last"]]


def test_a_full_line_is_told_and_free_again_later():
    model = Sines(steps=steps())
    with serving(model, SMALL) as place:
        sources = ["127.0.0.1", "127.0.0.1", "127.0.0.2"]
        streams = [place.generate(seconds=0.1, source=source) for source in sources]
        body = json.dumps({"prompt": "x"})
        status, answer = place.answer("POST", "/generate", body, source="127.0.0.3")
        assert status == 429 and "2 requests wait already" in answer["error"]
        streams[2].drop()
        eventually(lambda: place.health()["waiting"] == 1)
        again = place.generate(seconds=0.1, source="127.0.0.3")
        model.steps.release(3)
        for stream in (*streams[:2], again):
            assert [*stream][-1]["event"] == "done"


def test_a_client_finds_the_line_free_when_it_hears_the_end():
    """With nobody allowed to wait, the next of the same client would be refused otherwise."""
    with serving(Sines(), Limits(waiting=0)) as place:
        for _ in range(20):
            assert [e["event"] for e in place.generate(seconds=0.1)] == ["start", "audio", "done"]


def test_a_slow_reader_keeps_nobody_waiting():
    """Its clip, longer than what a connection holds, is made all the same."""
    model = Sines(2)
    with serving(model, Limits(seconds=300)) as place:
        slow = place.generate(seconds=300)
        assert [e["event"] for e in place.generate(seconds=0.1)][-1] == "done"
        assert sound(list(slow)) == model.pcm(300)


# A model that fails.


@pytest.mark.parametrize(
    ("spoil", "say"),
    [
        (lambda chunk: 1 / 0, "generation failed (ZeroDivisionError: division by zero)"),
        (lambda chunk: chunk[0], "(800, 1), not (1, samples, 1)"),
        (lambda chunk: chunk * np.nan, "NaN or infinite"),
        (lambda chunk: chunk / np.float32(1e-45), "NaN or infinite"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_an_error_midway_is_told_and_the_server_lives_on(caplog, spoil, say):
    model = Sines(spoil=lambda number, chunk: spoil(chunk) if number == 2 else chunk)
    with serving(model) as place:
        with caplog.at_level(logging.CRITICAL):
            events = list(place.generate(seconds=1))
        assert [e["event"] for e in events] == ["start", "audio", "audio", "error"]
        assert say in events[-1]["error"] and "\n" not in events[-1]["error"]
        assert model.calls[0].ended.wait(WAIT)
        model.spoil = lambda number, chunk: chunk
        assert list(place.generate())[-1]["event"] == "done"


def test_a_mistake_that_the_model_tells_is_passed_on_as_it_is():
    def spoil(number, chunk):
        raise UserError("top_k 9 is more\nthan 7")

    with serving(Sines(spoil=spoil)) as place:
        assert list(place.generate())[-1] == {"event": "error", "error": "top_k 9 is more than 7"}


# The end of the server.


def test_the_server_stops_while_it_generates(caplog):
    """Everyone is told, the model closed after the chunk that it is at, and no thread stays."""
    model = Sines(steps=steps())
    before = set(threading.enumerate())
    with serving(model) as place:
        runs, waits = place.generate(seconds=5), place.generate(seconds=5)
        assert next(runs)["event"] == "start" and next(waits)["event"] == "queued"
        place.server.should_exit = True
        ends = [*runs], [*waits]
        model.steps.release()
    for events in ends:
        assert len(events) == 1 and "server was stopped" in events[0]["error"]
    assert model.calls[0].end == "closed" and len(model.calls) == 1
    assert set(threading.enumerate()) <= before
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_serve_tells_its_address_and_returns_at_ctrl_c():
    """What the command calls: the address can be opened once it is told."""
    conditions = []

    def visit(address: str) -> None:
        with urllib.request.urlopen(f"{address}health", timeout=WAIT) as answer:
            conditions.append(json.load(answer)["status"])
        os.kill(os.getpid(), signal.SIGINT)

    visitor = []

    def announce(address: str) -> None:
        visitor.append(threading.Thread(target=visit, args=[address]))
        visitor[0].start()

    serve(Sines(), port=0, announce=announce)
    visitor[0].join()
    assert conditions == ["ok"]


def test_a_place_where_it_cannot_listen_is_told():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"127\.0\.0\.1:{port} .*choose another"):
            serve(Sines(), port=port)
    for host, port in [("127.0.0.1", 70_000), ("no.such.host.invalid", 0), ("a" * 80, 0)]:
        with pytest.raises(UserError, match="cannot listen on"):
            serve(Sines(), host, port)


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_missing_packages_name_the_extra(monkeypatch, package):
    app = make_app(Sines())
    name = "starlette.applications" if package == "starlette" else package
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"{package}; pip install 'rvq_jax\[serve\]'"):
        make_server(app) if package == "uvicorn" else make_app(Sines())


# The page.


def test_the_page_comes_with_a_policy_that_lets_nothing_else_in():
    with serving(Sines()) as place:
        connection, response = place.ask("GET", "/")
        with contextlib.closing(connection):
            body, headers = response.read().decode(), response.headers
    assert response.status == 200 and body == load_page()[0]
    assert headers["content-type"] == "text/html; charset=utf-8"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert "http://" not in body and "https://" not in body and "innerHTML" not in body
