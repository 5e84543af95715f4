"""What the server does not take: each bound and each mistake, told in one line of JSON."""

import contextlib
import json
import socket

import pytest
from serving import RATE, WAIT, Sines, serving

from rvq_jax.errors import UserError
from rvq_jax.serve import Limits
from rvq_jax.serve.connections import Timeouts
from rvq_jax.serve.requests import Refused, defaults, parse
from rvq_jax.serve.server import Guard

LIMITS = Limits(prompt=50, seconds=5.0, body=600, waiting=2)


@pytest.fixture(scope="module")
def place():
    """One server for all: nothing that is refused may harm it."""
    model = Sines()
    with serving(model, LIMITS) as place:
        yield place
        assert list(place.generate())[-1]["event"] == "done"
    assert len(model.calls) == place.allowed + 1


@pytest.fixture(autouse=True)
def counted(place):
    place.allowed = getattr(place, "allowed", 0)


def rejects(place, body, status: int, *say: str, headers=(), path="/generate", **options) -> None:
    found, answer = place.answer("POST", path, body, headers, **options)
    assert (found, list(answer)) == (status, ["error"]), answer
    assert [word for word in say if word not in answer["error"]] == [], answer
    assert answer["error"].isprintable() and len(answer["error"]) < 300


def field(name: str, text: str) -> str:
    """A body in which one field is `text`, as it stands."""
    prompt = "" if name == "prompt" else '"prompt": "a sine", '
    return f'{{{prompt}"{name}": {text}}}'


NO_NUMBERS = ["NaN", "Infinity", "-Infinity", "-1", "1e400", "1" + 300 * "0", '"1"', "null", "true"]
NO_NUMBERS += ["[1]", '{"a": 1}', "-1e-9"]


@pytest.mark.parametrize("text", NO_NUMBERS, ids=lambda text: text[:9])
@pytest.mark.parametrize(
    "name", ["seconds", "guidance_scale", "temperature", "top_p", "top_k", "seed", "takes"]
)
def test_a_number_that_is_none_or_out_of_range_is_told(place, name, text):
    rejects(place, field(name, text), 422, f"{name} must be a", "number from", "not ")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("seconds", "0"),
        ("seconds", "0.05"),
        ("seconds", "5.01"),
        ("guidance_scale", "20.5"),
        ("temperature", "11"),
        ("top_p", "1.01"),
        ("top_k", "65537"),
        ("top_k", "2.5"),
        ("top_k", "2.0"),
        ("seed", "4294967296"),
        ("seed", "0.5"),
        ("takes", "0"),
        ("takes", "5"),
        ("takes", "1.5"),
    ],
)
def test_bounds_are_told(place, name, text):
    rejects(place, field(name, text), 422, f"{name} must be a", text[:4])


@pytest.mark.parametrize(
    ("text", "say"),
    [
        ('""', "prompt is empty"),
        ('"  \\n "', "prompt is empty"),
        ('"a\\u0000b"', "U+0000 at 1"),
        ('"ab\\n"', "U+000A at 2"),
        ('"\\u001b[2J"', "U+001B at 0"),
        ('"a\\u0085"', "U+0085 at 1"),
        ('"\\ud83c"', "U+D83C at 0"),
        (json.dumps("é" * 51), "51 characters; shorten it to 50"),
        ("null", "prompt must be text, not null"),
        ("3", "prompt must be text, not 3"),
        ('["a"]', "prompt must be text, not a list"),
        ("true", "prompt must be text, not true"),
    ],
)
def test_a_prompt_that_is_none_is_told(place, text, say):
    rejects(place, field("prompt", text), 422, say)


@pytest.mark.parametrize(
    ("body", "status", "say"),
    [
        ("", 400, "the body is not JSON"),
        ("{", 400, "the body is not JSON"),
        ("prompt=a", 400, "the body is not JSON"),
        (b"\xff\xfe", 400, "the body is not JSON"),
        (b'{"prompt": "\xe9"}', 400, "the body is not JSON"),
        ("[" * 600, 400, "the body is not JSON"),
        (field("seed", '4294967294, "takes": 3'), 422, "seed is 4294967296, beyond 4294967295"),
        (field("melody", '"UklGRg=="'), 422, "unknown field 'melody'"),
        (field("iterations", "[1]"), 422, "unknown field 'iterations'"),
        (field("seconds", "01"), 400, "the body is not JSON"),
        ("[]", 422, "the body is a list, not an object"),
        ("null", 422, "the body is null, not an object"),
        ('"a sine"', 422, "not an object"),
        ("{}", 422, "prompt is missing"),
        (field("topk", "3"), 422, "unknown field 'topk'; did you mean 'top_k'?"),
        (field("zzz", "3"), 422, "unknown field 'zzz'; known: prompt, seconds"),
        (field("\\ud800\\n", "3"), 422, "unknown field"),
        (field("z" * 200, "3"), 422, "unknown field"),
        ('{"prompt": "a", "seconds": 1, "prompt": "b"}', 422, "'prompt' is there 2 times"),
        ('{"prompt": "a", "seed": 1, "seed": 1, "s\\u0065ed": 1}', 422, "'seed' is there 3 times"),
        ('{"prompt": {"a": 1, "a": 2}}', 422, "'a' is there 2 times"),
        ('{"prompt": "a", "\\ud800": 1, "\\ud800": 1}', 422, "is there 2 times"),
        (field("seconds", "[" * 200 + "]" * 200), 422, "not a list"),
        (field("prompt", '{"a":' * 90 + "1" + "}" * 90), 422, "not an object"),
        (field("seconds", "9" * 400), 422, "seconds must be a number"),
        (field("seed", "-0.0"), 422, "seed must be a whole number"),
        (b"\xef\xbb\xbf" + b'{"prompt": "a"}', 400, "the body is not JSON"),
        ('{"prompt": "a"}'.encode("utf-16"), 400, "the body is not JSON"),
        ('{"prompt": "a"}{"prompt": "b"}', 400, "the body is not JSON"),
        (b"\x1f\x8b\x08\x00", 400, "the body is not JSON"),
    ],
)
def test_a_body_that_is_no_request_is_told(place, body, status, say):
    rejects(place, body, status, say)


@pytest.mark.parametrize(
    ("name", "value"),
    [("seconds", float("inf")), ("seconds", float("nan")), ("seconds", 0), ("prompt", 0),
     ("body", -1), ("waiting", -1), ("waiting", 1000), ("audio", 0), ("takes", 0), ("takes", 65)],
)  # fmt: skip
def test_limits_have_limits(name, value):
    with pytest.raises(UserError, match=f"limit of {name} must be from"):
        Limits(**{name: value})


def test_json_nested_too_deep_is_told():
    """In a body as long as the default lets through."""
    with pytest.raises(Refused, match="not JSON"):
        parse(b"[" * 1_000_000, Limits())
    with pytest.raises(Refused, match="not JSON"):
        parse(b"9" * 10_000, Limits())


def test_the_longest_prompt_fits_the_body_however_it_is_written():
    """Twelve bytes for a character beyond the first plane."""
    body = json.dumps({"prompt": "🎹" * 1000, **defaults(Limits())})
    assert len(body) < Limits().body
    assert parse(body.encode(), Limits()).prompt == "🎹" * 1000


# The size of a body.


def test_a_long_body_is_refused(place):
    long = json.dumps({"prompt": "a" * 600})
    rejects(place, long, 413, "longer than 600 bytes", "shorten")
    # Without a length, in chunks; http.client sends them all before it reads.
    rejects(place, iter([b"x" * 300] * 3), 413, "longer than 600 bytes", encode_chunked=True)
    rejects(place, iter([b"x" * 50_000] * 20), 413, "longer than 600 bytes", encode_chunked=True)


def test_a_short_body_without_a_length_is_taken(place):
    chunks = iter([b'{"prompt": "a sine", ', b'"seconds": 0.1}'])
    connection, response = place.ask("POST", "/generate", chunks, encode_chunked=True)
    with contextlib.closing(connection):
        assert response.status == 200
        assert json.loads(response.read().splitlines()[-1])["samples"] == RATE // 10
    place.allowed += 1


def raw(place, text: bytes, end: bool = False) -> bytes:
    """What the server answers to bytes as they are, up to its first pause for as long as a line."""
    with socket.create_connection(("127.0.0.1", place.port), timeout=WAIT) as sock:
        sock.sendall(text.replace(b"PORT", str(place.port).encode()))
        if end:
            sock.shutdown(socket.SHUT_WR)
        answer = b""
        while not answer.endswith(b"}") and (more := sock.recv(4096)):
            answer += more
        return answer


POST = b"POST /generate HTTP/1.1\r\nHost: localhost:PORT\r\n"


def test_a_length_that_lies_is_refused(place):
    """Too long is known from the header alone; too short cuts the body where the length says."""
    answer = raw(place, POST + b"Content-Length: 1000000000\r\n\r\n{}")
    assert b" 413 " in answer.splitlines()[0] and b"longer than 600 bytes" in answer
    answer = raw(place, POST + b'Content-Length: 5\r\n\r\n{"prompt": "a sine"}')
    assert b" 400 " in answer.splitlines()[0] and b"not JSON" in answer
    for length in (b"-5", b"many", b"9" * 5000, b"5\r\nContent-Length: 6"):
        answer = raw(place, POST + b"Content-Length: " + length + b"\r\n\r\n{}", end=True)
        assert b" 400 " in answer.splitlines()[0]


def test_a_body_that_never_comes_is_given_up():
    with serving(Sines(), timeouts=Timeouts(request=0.1)) as place:
        answer = raw(place, POST + b'Content-Length: 50\r\n\r\n{"prompt": ')
    assert b" 408 " in answer.splitlines()[0] and b"took longer than 0.1 s" in answer


def test_a_client_that_goes_away_within_its_body_harms_nobody(place, caplog):
    with socket.create_connection(("127.0.0.1", place.port)) as sock:
        text = POST + b'Content-Length: 50\r\n\r\n{"prompt": '
        sock.sendall(text.replace(b"PORT", str(place.port).encode()))
    assert place.health()["status"] == "ok"
    assert caplog.records == []


# Where a request comes from.


@pytest.mark.parametrize(
    "host", ["127.0.0.1:PORT", "localhost:PORT", "LocalHost:PORT", "[::1]:PORT"]
)
def test_its_own_names_are_answered(place, host):
    headers = {"Host": host.replace("PORT", str(place.port))}
    assert place.answer("GET", "/health", headers=headers)[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example:PORT", "evil.example", "localhost", "127.0.0.1:1", "localhost.evil.example:PORT",
     "127.0.0.1.evil.example:PORT", "localhost:PORT.evil.example", "evil@localhost:PORT", "",
     "0.0.0.0:PORT", "localhost:PORT, evil.example"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/health", "/generate", "/nowhere"])
def test_a_foreign_name_is_refused(place, host, path):
    """A page of evil.example whose name was bound to 127.0.0.1 sends its own name as Host."""
    headers = {"Host": host.replace("PORT", str(place.port))}
    method, body = ("POST", '{"prompt": "x"}') if path == "/generate" else ("GET", None)
    status, answer = place.answer(method, path, body, headers)
    assert status == 403 and f"open http://127.0.0.1:{place.port}/" in answer["error"]


def test_two_hosts_or_none_are_refused(place):
    two = b"GET / HTTP/1.1\r\nHost: localhost:PORT\r\nHost: evil.example\r\n\r\n"
    assert raw(place, two, end=True).splitlines()[0].split()[1] in (b"400", b"403")
    none = raw(place, b"GET / HTTP/1.0\r\n\r\n")
    assert b" 403 " in none.splitlines()[0] and b"host is missing" in none


def test_a_given_name_and_the_address_of_the_connection_are_own():
    """As with --host 0.0.0.0, which no browser sends as Host."""

    def allowed(given: str, host: bytes, address: str = "192.0.2.7", port: int = 8000) -> bool:
        headers = [(b"host", host)]
        scope = {"server": (address, port), "method": "GET", "headers": headers}
        try:
            Guard(None, given, None).check(scope)
        except Refused:
            return False
        return True

    assert allowed("0.0.0.0", b"192.0.2.7:8000") and allowed("0.0.0.0", b"localhost:8000")
    assert allowed("Box.example", b"box.example:8000")
    assert allowed("::", b"[2001:db8::7]:8000", "2001:db8::7")
    assert allowed("::1", b"[::1]", "::1", 80)
    assert not allowed("0.0.0.0", b"192.0.2.8:8000")
    assert not allowed("0.0.0.0", b"evil.example:8000")


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "", "http://localhost", "http://localhost:1", "file://",
     "http://localhost:PORT.evil.example", "http://127.0.0.1:PORT", "chrome-extension://abc"],
)  # fmt: skip
def test_a_post_of_a_foreign_page_is_refused(place, origin):
    """Even of a page of this machine: another port is another program's."""
    port = str(place.port)
    headers = {"Host": f"localhost:{port}", "Origin": origin.replace("PORT", port)}
    rejects(place, '{"prompt": "x"}', 403, "origin is", headers=headers)


def test_a_post_of_its_own_page_is_taken(place):
    own = f"localhost:{place.port}"
    headers = {"Host": own, "Origin": f"http://{own}"}
    body = '{"prompt": "x", "seconds": 0.1}'
    connection, response = place.ask("POST", "/generate", body, headers)
    with contextlib.closing(connection):
        assert response.status == 200 and response.read().count(b"\n") == 3
        assert not [name for name in response.headers if name.lower().startswith("access-control")]
    place.allowed += 1


# Where a request goes.


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/page.html", 404),
        ("GET", "/../server.py", 404),
        ("GET", "/generate", 405),
        ("POST", "/", 405),
        ("OPTIONS", "/generate", 405),
        ("DELETE", "/health", 405),
    ],
)
def test_other_places_and_methods_are_told(place, method, path, status):
    found, answer = place.answer(method, path)
    assert found == status and "use GET /, GET /health or POST /generate" in answer["error"]
    assert path in answer["error"]
