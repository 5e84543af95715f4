"""The page of a server in a browser's tab: opened, its fields typed in, its takes read."""

import contextlib
import wave
from io import BytesIO

from serving import serving

from rvq_jax.serve import Limits

DONE = "document.querySelector('#status').textContent === 'Done'"
PLAYER = "takes.at(-1).player"
CHOOSE = """{
    const data = new DataTransfer(), field = document.querySelector('#%s');
    data.items.add(new File([new Uint8Array(%s)], '%s'));
    field.files = data.files;
    field.dispatchEvent(new Event('change'));
}"""


@contextlib.contextmanager
def opening(tab):
    """A function that opens the page of a model and gives back its Place.

    At the end the page has logged no error.
    """
    tab.problems.clear()
    with contextlib.ExitStack() as stack:

        def open_page(model, limits: Limits | None = None, name: str = ""):
            place = stack.enter_context(serving(model, limits, name=name))
            tab.open(f"http://127.0.0.1:{place.port}/")
            tab.wait("document.querySelector('#model').textContent")
            return place

        yield open_page
        tab.see("0")
        # Refusals are logged by the browser itself.
        assert [p for p in tab.problems if "status of 4" not in p] == []


def ask(tab, prompt: str, **fields) -> None:
    """Types into the fields and clicks the button."""
    for name, value in {"prompt": prompt, **fields}.items():
        tab.see(f"document.querySelector('#{name}').value = {str(value)!r}")
    tab.see("document.querySelector('#go').click()")


def text(tab, name: str) -> str:
    return tab.see(f"document.querySelector('#{name}').textContent")


def part(tab, name: str, take: int = -1) -> str:
    """The text of an element of a take."""
    return tab.see(f"takes.at({take}).part('.{name}').textContent")


def samples(tab, take: int = -1) -> bytes:
    """The samples of the file that a take is kept as."""
    code = f"takes.at({take}).clip.wav().arrayBuffer().then(b => [...new Uint8Array(b)])"
    with wave.open(BytesIO(bytes(tab.see(code)))) as file:
        return file.readframes(file.getnframes())


def hidden(tab, name: str) -> bool:
    return tab.see(f"document.querySelector('#{name}').hidden")
