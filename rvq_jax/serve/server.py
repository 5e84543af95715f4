"""The web server: a page, and POST /generate, which answers with a line of JSON per event."""

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

from rvq_jax.errors import UserError, clipped, printable
from rvq_jax.serve.connections import HEAD, TIMEOUTS, Timeouts, client_of, protocol
from rvq_jax.serve.queue import Job, Line
from rvq_jax.serve.requests import LIMITS, Limits, Refused, body_limit, defaults, parse
from rvq_jax.systems import generators

CONNECTIONS = 100  # beside those that wait: pages, keep-alives
BACKLOG = 128  # connections that the system holds until they are accepted, all at once
RETRY = 10  # seconds after which a client that came too often may come again
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
SAFE = ("GET", "HEAD")
PARTS = {  # of the page, in their order
    "style": ["page.css"],
    "script": ["sound.js", "pictures.js", "takes.js", "page.js"],
}


def serve(
    model,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits = LIMITS,
    announce: Callable[[str], None] = print,
    timeouts: Timeouts = TIMEOUTS,
    name: str = "",
) -> bool:
    """Serves a model until Ctrl-C.

    There are no passwords: on a host other than the default, whoever reaches it can use it.

    Args:
      model: has `stream`, `codec` and `channels`, as MusicGen, SoundStorm and MAGNeT; one that
        speaks is asked by `speak`.
      host: name or address to listen on.
      port: port to listen on; 0 takes a free one.
      limits: the most that a request may ask for, and how many may wait.
      announce: function that is called with the server's address when it listens.
      timeouts: how long it waits for clients, and for a generation when it stops.
      name: of the model, for the page.

    Returns:
      True if a generation did not end in time: its thread runs on.

    Raises:
      UserError: when it cannot listen there, or starlette or uvicorn is missing.
    """
    app = make_app(model, limits, host, timeouts, name)
    server = make_server(app)
    with listen(host, port) as sock:
        announce(f"http://{_bracketed(host)}:{sock.getsockname()[1]}/")
        # uvicorn closes down first and then raises the Ctrl-C again.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[sock])
    return app.state.line.lives


def make_app(
    model,
    limits: Limits = LIMITS,
    host: str = "127.0.0.1",
    timeouts: Timeouts = TIMEOUTS,
    name: str = "",
):
    """The ASGI app of a model.

    GET / is the page, GET /health tells the model, state and limits, POST /generate takes the
    fields of `requests.Request` and streams events: queued (place); of each take start (seed, rate,
    channels, samples), audio (pcm: base64 of interleaved int16), done (samples, seconds; ended, of
    speech); error.

    Args:
      model: as of `serve`, and so are all.
      limits: the most that a request may ask for.
      host: a name, beside those of loopback, that it answers to.
      timeouts: how long it waits.
      name: of the model.

    Returns:
      The app.

    Raises:
      UserError: starlette is missing.
    """
    try:
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.middleware import Middleware
        from starlette.requests import Request
        from starlette.responses import HTMLResponse, JSONResponse
        from starlette.routing import Route
    except ImportError as error:
        raise _missing("starlette") from error

    line, inputs = Line(model, limits), generators.inputs(model)
    own = defaults(limits, inputs) | generators.sampling(model)
    if "iterations" in inputs:
        own["iterations"] = generators.iterations(model)
    html, policy = load_page()

    @contextlib.asynccontextmanager
    async def lifespan(app):
        line.start()
        yield
        line.stop()
        line.join(timeouts.stop)

    async def page(request: Request):
        headers = {"content-security-policy": policy, "referrer-policy": "no-referrer"}
        headers |= {"x-content-type-options": "nosniff", "cache-control": "no-store"}
        return HTMLResponse(html, headers=headers)

    async def health(request: Request):
        return JSONResponse(
            {
                "status": "ok" if line.lives else "failed",
                "name": clipped(printable(name), 80),
                "system": generators.title(model),
                "running": line.running is not None,
                "waiting": len(line.waiting),
                "rate": line.rate,
                "channels": line.channels,
                "inputs": inputs,
                "limits": dataclasses.asdict(limits),
                "defaults": own,
            },
            200 if line.lives else 503,
        )

    async def generate(request: Request):
        most = body_limit(limits, inputs)
        body = await read_body(request, most, timeouts.request)
        client = client_of(request.client.host) if request.client else ""
        return Events(line, line.enter(parse(body, limits, inputs), client))

    async def refusal(request: Request, error: Exception):
        if isinstance(error, Refused):
            headers = {"retry-after": str(RETRY)} if error.status == 429 else None
            return JSONResponse({"error": str(error)}, error.status, headers)
        path = clipped(request.scope["path"], 80)
        places = "GET /, GET /health or POST /generate"
        text = f"{request.method} {path}: {error.detail}; use {places}"
        line = str(Refused(error.status_code, text))
        return JSONResponse({"error": line}, error.status_code, error.headers)

    app = Starlette(
        routes=[
            Route("/", page),
            Route("/health", health),
            Route("/generate", generate, methods=["POST"]),
        ],
        middleware=[Middleware(Guard, host=host, refusal=refusal)],
        exception_handlers={Refused: refusal, HTTPException: refusal},
        lifespan=lifespan,
    )
    app.state.line, app.state.timeouts = line, timeouts
    return app


def make_server(app):
    """A uvicorn server of an app of `make_app`; raises UserError if uvicorn is missing."""
    try:
        import uvicorn
    except ImportError as error:
        raise _missing("uvicorn") from error

    line, timeouts = app.state.line, app.state.timeouts

    class Server(uvicorn.Server):
        """Watches its connections, and ends the generations before it waits for them."""

        async def on_tick(self, counter: int) -> bool:
            for connection in list(self.server_state.connections):
                connection.watch()
            return await super().on_tick(counter)

        async def shutdown(self, sockets=None):
            line.stop()
            connections = self.server_state.connections
            for connection in list(connections):
                if connection.awaited is not None:
                    connection.cut()
            loop = asyncio.get_running_loop()
            loop.call_later(timeouts.stop, lambda: [x.cut() for x in list(connections)])
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=protocol(line.limits.waiting + CONNECTIONS, timeouts),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",  # what it warns of is what clients send: they could fill a disk
        access_log=False,
        server_header=False,
        proxy_headers=False,  # by which a client could be as many as it likes
        backlog=BACKLOG,
        h11_max_incomplete_event_size=HEAD,
        timeout_graceful_shutdown=math.ceil(2 * timeouts.stop),  # seconds, if all else fails
    )
    return Server(config)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; raises UserError if the address is taken or is none."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen()
        return sock
    except (OSError, OverflowError, UnicodeError) as error:
        sock.close()
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot listen on {host}:{port} ({reason}); choose another --host or --port"
        ) from error


class Events:
    """The response of a job: its events as they come; the job ends if the client goes away."""

    def __init__(self, line: Line, job: Job):
        self.line, self.job = line, job

    async def __call__(self, scope, receive, send) -> None:
        watch = asyncio.create_task(self._watch(receive))
        headers = [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")]
        start = {"type": "http.response.start", "status": 200, "headers": headers}
        try:
            await send(start)
            while (event := await self.job.events.get()) is not None:
                body = json.dumps(event).encode() + b"\n"
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            watch.cancel()
            self.line.leave(self.job)

    async def _watch(self, receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.line.leave(self.job)


class Guard:
    """Lets in only what is meant for this server, so that no web page can use it from outside.

    The Host must be a name or address of its own (against DNS rebinding), and the Origin of
    anything but a read, if there is one, its own page.
    """

    def __init__(self, app, host: str, refusal: Callable):
        self.app, self.host, self.refusal = app, host, refusal

    async def __call__(self, scope, receive, send) -> None:
        try:
            if scope["type"] == "http":
                self.check(scope)
        except Refused as error:
            response = await self.refusal(None, error)
            await response(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def check(self, scope) -> None:
        """Raises Refused if the request came under a foreign name or from a foreign page."""
        address, port = scope["server"]
        # An address cannot be rebound, so the one that the connection came to is good too.
        names = {*LOOPBACK, _bracketed(self.host.lower()), _bracketed(address)}
        own = {f"{name}:{port}" for name in names} | (names if port == 80 else set())
        headers = [(key, value.decode("latin-1").lower()) for key, value in scope["headers"]]
        hosts = [value for key, value in headers if key == b"host"]
        if len(hosts) != 1 or hosts[0] not in own:
            shown = repr(hosts[0][:80]) if hosts else "missing"
            raise Refused(403, f"host is {shown}; open http://{_bracketed(self.host)}:{port}/")
        if scope["method"] in SAFE:
            return
        page = f"//{hosts[0]}"
        for origin in [value for key, value in headers if key == b"origin"]:
            if origin not in (f"http:{page}", f"https:{page}"):
                raise Refused(403, f"origin is {origin[:80]!r}; use the page of http:{page}/")


async def read_body(request, most: int, seconds: float) -> bytes:
    """The body of a request; raises Refused if it is too long, whatever its header says, or late.

    most: bytes. seconds: for all of it to arrive.
    """
    from starlette.requests import ClientDisconnect

    too_long = Refused(413, f"the body is longer than {most} bytes; shorten it")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most:
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise too_long
    except TimeoutError:
        raise Refused(408, f"the body took longer than {seconds:g} s; send it again") from None
    except ClientDisconnect:
        raise Refused(400, "the body ends early; send it again") from None
    return bytes(body)


def load_page() -> tuple[str, str]:
    """The page of its parts, and a policy by which it runs its own script and style and loads
    nothing."""
    folder = Path(__file__).with_name("page")

    def text(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    html = text("page.html")
    for tag, names in PARTS.items():
        inside = "\n".join(text(name) for name in names)
        html = html.replace(f"<{tag}></{tag}>", f"<{tag}>\n{inside}</{tag}>")

    def digest(tag: str) -> str:
        inside = re.search(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL).group(1)
        code = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        return f"'sha256-{code}'"

    return html, "; ".join(
        [
            "default-src 'none'",
            f"script-src {digest('script')}",
            f"style-src {digest('style')}",
            "connect-src 'self'",
            "media-src blob:",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


def _bracketed(host: str) -> str:
    """A host as it stands in an address."""
    return f"[{host}]" if ":" in host else host


def _missing(package: str) -> UserError:
    return UserError(f"serving needs {package}; pip install 'rvq_jax[serve]'")
