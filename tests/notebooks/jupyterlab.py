"""JupyterLab in a browser without a window, both on this machine's loopback only."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from nsactors.testing import TIMEOUT_S, wait_until

__all__ = ["CHROMIUM", "CHROMIUM_DRIVER", "LONG_S", "Lab", "Seen", "open_browser", "open_lab"]

LONG_S = 2 * TIMEOUT_S
"""For what starts a server, a browser or a cluster."""

CHROMIUM = shutil.which("chromium")
CHROMIUM_DRIVER = shutil.which("chromedriver")

_TOKEN = "test"
_BROWSER_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1300,2000",
    # Whatever a page asks of other hosts, it does not get.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
_SEEN = """
const output = document.querySelectorAll('.jp-CodeCell')[arguments[0]].querySelector('.jp-Cell-outputWrapper');
return output ? [output.innerText, output.querySelectorAll('img').length] : ['', 0];
"""


class Seen(NamedTuple):
    """The output under a cell in the browser."""

    text: str
    images: int


class Lab:
    """A notebook that is open in a browser.

    Args:
        browser: a Selenium driver that shows it.
    """

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def run_cells(self, count: int) -> None:
        """Press Shift+Enter so many times: the cells are sent one after the other, and not waited for."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        for _ in range(count):
            ActionChains(self.browser).key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT).perform()

    def click_first_cell(self) -> None:
        """Select the first cell."""
        self.browser.find_element("css selector", ".jp-CodeCell .jp-InputPrompt").click()

    def seen(self, cell: int) -> Seen:
        """Return the output that is under a cell now."""
        return Seen(*self.browser.execute_script(_SEEN, cell))


@contextmanager
def open_lab(notebook: Path) -> Iterator[Lab]:
    """Show a notebook, whose kernel is this Python; at its end everything is ended."""
    folder = notebook.parent
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(_command(port, folder), env=_environment(folder), stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _ask(f"{address}/api/status") is not None, LONG_S)
        with open_browser(folder) as browser:
            browser.get(f"{address}/doc/tree/{notebook.name}?token={_TOKEN}")
            wait_until(lambda: [kernel["execution_state"] for kernel in _kernels(address)] == ["idle"], LONG_S)
            wait_until(lambda: browser.find_elements("css selector", ".jp-CodeCell .jp-InputPrompt"), LONG_S)
            yield Lab(browser)
        for kernel in _kernels(address):
            _ask(f"{address}/api/kernels/{kernel['id']}", "DELETE")
    finally:
        server.terminate()
        server.wait(TIMEOUT_S)


@contextmanager
def open_browser(folder: Path) -> Iterator[Any]:
    """Open a browser whose files are in a folder, and quit it at the end; it yields a Selenium driver."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in [*_BROWSER_FLAGS, f"--user-data-dir={folder / 'browser'}"]:
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service(CHROMIUM_DRIVER, env=_environment(folder)))
    try:
        yield browser
    finally:
        browser.quit()


def _command(port: int, folder: Path) -> list[str]:
    options = [
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={folder}",
        f"--IdentityProvider.token={_TOKEN}",
        "--LabApp.extension_manager=readonly",
    ]
    return [sys.executable, "-m", "jupyterlab", *options]


def _environment(folder: Path) -> dict[str, str]:
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "RUNTIME", "DATA")}
    own |= {"HOME": str(folder), "IPYTHONDIR": str(folder / "ipython"), "PYTHONPATH": str(Path(__file__).parents[2])}
    return {**os.environ, **own}


def _kernels(address: str) -> list[dict[str, Any]]:
    return list(json.loads(_ask(f"{address}/api/kernels") or "[]"))


def _ask(url: str, method: str = "GET") -> bytes | None:
    request = urllib.request.Request(url, method=method, headers={"Authorization": f"token {_TOKEN}"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return bytes(answer.read())
    except urllib.error.URLError:
        return None
