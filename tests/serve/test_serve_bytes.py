"""Bytes that are no request, or a strange one: an answer, no line in the log, and it goes on."""

import contextlib
import json

import pytest
from serving import Sines, raw, serving

HOST = b"Host: localhost:PORT\r\nConnection: close\r\n"
POST = b"POST /generate HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def place():
    with serving(Sines()) as place:
        yield place


def get(path: bytes, method: bytes = b"GET") -> bytes:
    return method + b" " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n"


# What is sent, and the status of the answer; None: whatever, and none is good too.
CASES = {
    # Heads.
    "a long head": (b"GET / HTTP/1.1\r\nX: " + b"a" * 10**6, None),
    "many headers": (b"GET / HTTP/1.1\r\n" + HOST + b"a: b\r\n" * 10**5, None),
    "a line without an end": (b"A" * 10**5, 400),
    "ends of lines only": (b"\r\n" * 10**4, None),
    "a NUL in a name": (b"GET / HTTP/1.1\r\nX\0: b\r\n\r\n", 400),
    "a folded header": (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n", None),
    "no UTF-8 in a header": (b"GET / HTTP/1.1\r\n" + HOST + b"X: \xff\r\n\r\n", 200),
    "a host that is none": (b"GET / HTTP/1.1\r\nHost: [::1\r\nConnection: close\r\n\r\n", 403),
    "an origin of bytes": (POST + b"Origin: \xff\xfe\r\n\r\n", 403),
    # Other protocols.
    "HTTP 0.9": (b"GET /\r\n\r\n", 400),
    "HTTP 2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 99, 400),
    "an h2c upgrade": (
        b"GET / HTTP/1.1\r\nHost: localhost:PORT\r\nConnection: Upgrade, close\r\n"
        b"Upgrade: h2c\r\n\r\n",
        200,
    ),
    # Methods.
    "HEAD /": (get(b"/", b"HEAD"), 200),
    "HEAD /health": (get(b"/health", b"HEAD"), 200),
    "HEAD /generate": (get(b"/generate", b"HEAD"), 405),
    "OPTIONS *": (get(b"*", b"OPTIONS"), 404),
    "OPTIONS /": (get(b"/", b"OPTIONS"), 405),
    "TRACE": (get(b"/", b"TRACE"), 405),
    "CONNECT": (get(b"localhost:PORT", b"CONNECT"), 404),
    "a method of a thousand letters": (get(b"/", b"A" * 1000), 405),
    # Paths.
    "up": (get(b"/../../etc/passwd"), 404),
    "up, escaped": (get(b"/%2e%2e/%2e%2e/etc/passwd"), 404),
    "up, escaped twice": (get(b"/%252e%252e/etc/passwd"), 404),
    "up, of Windows": (get(b"/..%5c..%5cpage.html"), 404),
    "of the system": (get(b"//etc/passwd"), 404),
    "the page's own file": (get(b"/page.html"), 404),
    "an address": (get(b"http://evil.example/"), 404),
    "a bracket": (get(b"//["), 404),
    "bytes that are no text": (get(b"/%ff%00%0d%0aX:%20y"), 404),
    "a long path": (get(b"/" + b"a" * 15_000), 404),
    "a question": (get(b"/health?" + b"a=%ff&" * 2000), 200),
    # Bodies.
    "a chunk of no size": (CHUNKED + b"zz\r\n", 400),
    "a chunk of a large size": (CHUNKED + b"f" * 30 + b"\r\n", 400),
    "endless words of a chunk": (CHUNKED + b"5;" + b"a" * 10**6, 400),
    "endless trailers": (CHUNKED + b"0\r\n" + b"a: b\r\n" * 10**5, 400),
    "a bad chunk to what reads none": (
        b"GET / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        None,
    ),
    "an encoding that is none": (POST + b"Transfer-Encoding: gzip\r\n\r\nabc", 400),
    "two encodings": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    "a body with two ends": (CHUNKED[:-2] + b"Content-Length: 5\r\n\r\n0\r\n\r\n", 400),
    "a form": (POST + b"Content-Type: multipart/form-data\r\nContent-Length: 3\r\n\r\na=b", 400),
    "a body of zips": (POST + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b", 400),
    "a prompt of a megabyte": (
        POST + b'Content-Length: 1000015\r\n\r\n{"prompt": "' + b"a" * 10**6 + b'"}',
        413,
    ),
    "an expectation that is too long": (
        POST + b"Expect: 100-continue\r\nContent-Length: 99999\r\n\r\n",
        413,
    ),
    "a request within an answer": (
        POST.replace(b"close", b"keep-alive")
        + b'Content-Length: 15\r\n\r\n{"prompt": "a"}\0\0\0\r\n\r\n',
        200,
    ),
}


@pytest.mark.parametrize(("text", "status"), CASES.values(), ids=CASES)
def test_strange_bytes_are_answered_and_leave_no_trace(place, caplog, text, status):
    answer = b""
    # What it has closed before it took all is reset, and the answer may be lost with it.
    with contextlib.suppress(ConnectionError), raw(place, text) as sock:
        while more := sock.recv(65_536):
            answer += more
    if status is not None and (answer or len(text) < 10**5):
        assert int(answer.split(maxsplit=2)[1]) == status, answer[:500]
    assert b"root:" not in answer and b"Traceback" not in answer
    if answer.startswith(b"HTTP/1.1 40") and answer.endswith(b'"}'):
        assert len(json.loads(answer.rpartition(b"\r\n")[2])["error"]) < 300
    assert place.health()["status"] == "ok"
    assert caplog.records == []
    if text.startswith(b"HEAD"):
        assert answer.endswith(b"\r\n\r\n")


def test_a_clip_comes_after_all_of_them(place):
    assert list(place.generate())[-1]["event"] == "done"
