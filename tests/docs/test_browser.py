"""The documentation's site in a browser: the width of a phone, the dark scheme, copying and searching."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from nsactors.testing import TIMEOUT_S, wait_until
from tests.notebooks.jupyterlab import CHROMIUM, CHROMIUM_DRIVER, open_browser

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.full_size,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not (CHROMIUM and CHROMIUM_DRIVER and find_spec("mkdocstrings") and find_spec("selenium")),
        reason="needs chromium, chromium-driver, selenium, and nsactors[docs]",
    ),
]

ROOT = Path(__file__).parents[2]
BUILD_S = 500
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
DESKTOP = {"width": 1300, "height": 900, "deviceScaleFactor": 1, "mobile": False}
PICTURES = "NSACTORS_TEST_PICTURES"
"""Names a folder for pictures of the pages, for those who want to look."""
LOOKED_AT = {
    "": "home",
    "how-to/move-data/": "guide",
    "tutorials/interactive/": "tutorial",
    "reference/views/": "reference",
    "explanation/architecture/": "explanation",
    "how-to/background-clusters/": "commands",
}


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and writes nothing about it."""

    def log_message(self, format: str, *arguments: Any) -> None:
        """Drop the message."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=BUILD_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with open_browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


def show(browser: Any, url: str, screen: dict[str, Any], scheme: str = "light") -> None:
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(url)


def take_picture(browser: Any, name: str) -> None:
    if folder := os.environ.get(PICTURES):
        browser.save_screenshot(f"{folder}/{name}.png")


def test_no_page_is_wider_than_a_phone(browser: Any, address: str, site: Path) -> None:
    pages = sorted(path.parent.relative_to(site).as_posix() for path in site.rglob("index.html"))
    assert len(pages) > 50
    too_wide = {}
    for page in pages:
        show(browser, f"{address}{page}/", PHONE)
        width = browser.execute_script("return document.documentElement.scrollWidth")
        if width > PHONE["width"]:
            too_wide[page] = width
    assert too_wide == {}


def test_the_first_column_of_a_wide_table_of_numbers_stays_in_sight(browser: Any, address: str) -> None:
    show(browser, f"{address}explanation/performance/", PHONE)
    left, hidden = browser.execute_script(
        """
        const table = document.querySelector('table:has(td[style*="right"])');
        table.closest('.md-typeset__scrollwrap').scrollLeft = 300;
        return [...table.querySelectorAll('tbody tr:first-child td')].map(cell => cell.getBoundingClientRect().left);
        """
    )[:2]
    assert left >= 0 > hidden


@pytest.mark.parametrize("page", LOOKED_AT)
def test_pages_follow_the_reader_s_scheme_and_have_neighbours(browser: Any, address: str, page: str) -> None:
    backgrounds = []
    for scheme, screen in (("light", PHONE), ("light", DESKTOP), ("dark", DESKTOP)):
        show(browser, address + page, screen, scheme)
        take_picture(browser, f"{LOOKED_AT[page]}-{scheme}-{screen['width']}")
        backgrounds.append(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert backgrounds[0] == backgrounds[1] != backgrounds[2]
    assert browser.find_elements("css selector", ".md-footer__link--next")


def test_a_page_loads_from_nowhere_else(browser: Any, address: str) -> None:
    show(browser, f"{address}reference/views/", DESKTOP)
    loads = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert loads
    assert [load for load in loads if not load.startswith(address)] == []


def test_a_session_is_copied_without_prompts_and_output(browser: Any, address: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    browser.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    show(browser, f"{address}how-to/move-data/", DESKTOP)
    buttons = partial(browser.find_elements, "css selector", ".language-pycon .md-code__button")
    wait_until(buttons)
    copied = []
    for button in buttons()[:2]:
        ActionChains(browser).move_to_element(button).click().perform()
        copied.append(browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])"))
    assert "from nsactors import Cluster" in copied[0]
    lines = [line for text in copied for line in text.splitlines()]
    assert [line for line in lines if line.startswith((">>>", "...", "[", "array("))] == []


@pytest.mark.parametrize("words", ["scatter", "recovery replay", "tuple space"])
def test_a_search_finds_guides_before_prose(browser: Any, address: str, words: str) -> None:
    show(browser, f"{address}?q={words.replace(' ', '+')}", DESKTOP)
    links = "return [...document.querySelectorAll('.md-search-result__link')].map(link => link.href)"
    wait_until(lambda: browser.execute_script(links), TIMEOUT_S)
    folders = [link.removeprefix(address).partition("/")[0] for link in browser.execute_script(links)]
    assert "how-to" in folders
    prose = [place for place, folder in enumerate(folders) if folder in {"explanation", "decisions"}]
    assert folders.index("how-to") < min(prose, default=len(folders))
