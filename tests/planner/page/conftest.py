"""A headless Chromium on the page, and everything it complains about."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from infalign.planner.page import write_page  # noqa: E402


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where the system's Chromium is; without one these tests skip, in CI they fail."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        reason = "no chromium is installed: apt-get install chromium"
        if os.environ.get("INFALIGN_NEEDS_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator:
    """One browser for a file's tests; its driver leaves an event loop running while it lives."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def plan_html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page as a file."""
    return write_page(tmp_path_factory.mktemp("page") / "plan.html")


@pytest.fixture
def open_page(browser, plan_html: Path) -> Iterator[Callable]:
    """Opens the page from its file, with a hash and window settings; no complaint is tolerated."""
    complaints, contexts = [], []

    def opened(hash_: str = "", path: Path = plan_html, **settings):
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | settings))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        listen(page, complaints)
        page.goto(path.as_uri() + hash_)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def listen(page, complaints: list[str]) -> None:
    """Collect warnings, errors, and every request that is not the page's own."""
    page.on("console", lambda m: m.type in ("error", "warning") and complaints.append(m.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    # A worker's own source counts as failed when its window is closed early.
    lost = lambda r: r.url.startswith("blob:") or complaints.append(r.url)  # noqa: E731
    page.on("requestfailed", lost)
    own = ("file:", "blob:", "data:", "about:")
    page.on("request", lambda r: r.url.startswith(own) or complaints.append(f"asks for {r.url}"))
