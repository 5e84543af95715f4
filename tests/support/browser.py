"""What a page does in a real browser: `inspect` opens it headless in Chromium, if there is one."""

import html
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--mute-audio",
    "--window-size=500,900",  # about a phone, as narrow as headless windows get
)
# Players and images of data URIs hold back the load event until they end one way or the other, and
# Chromium prints the DOM after it. A time budget would not do: it runs out while audio is decoded.
SCRIPT = """<script>addEventListener('load', () => {
  const players = [...document.querySelectorAll('audio')], images = [...document.images];
  const root = document.documentElement;
  root.dataset.seen = JSON.stringify({
    players: players.length,
    playable: players.filter(p => !p.error && p.readyState >= 1 && p.duration > 0).length,
    seconds: players.map(player => player.duration),
    images: images.length,
    drawn: images.filter(image => image.complete && image.naturalWidth > 0).length,
    fetched: performance.getEntriesByType('resource').map(entry => entry.name)
      .filter(name => !name.startsWith('data:')),
    overflow: root.scrollWidth - root.clientWidth,
  });
});</script>"""


def inspect(html_path: str | Path) -> dict | None:
    """What Chromium makes of a page in a window 500 pixels wide; None if it is not installed.

    players, images: how many there are; playable, drawn: how many of them work; seconds: lengths
    of the players; fetched: addresses other than data URIs that it loaded; overflow: pixels that
    the page is wider than the window. Raises RuntimeError if the page never settles.
    """
    binary = next(filter(None, map(shutil.which, NAMES)), None)
    if binary is None:
        return None
    page = Path(html_path).read_text(encoding="utf-8")
    # Chromium's last processes may still write to the profile when it has printed.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / "page.html"
        copy.write_text(page.replace("</body>", f"{SCRIPT}</body>"), encoding="utf-8")
        command = [binary, *FLAGS, f"--user-data-dir={folder}/profile", "--dump-dom", copy.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    seen = re.search(r'<html[^>]* data-seen="([^"]*)"', done.stdout)
    if seen is None:
        raise RuntimeError(f"the page did not settle: {done.stderr[-2000:]}")
    return json.loads(html.unescape(seen.group(1)))
