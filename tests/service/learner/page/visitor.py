"""Somebody who looks at the page."""

from __future__ import annotations

from playwright.sync_api import Page

TIMEOUT_MS = 60_000


class Visitor:
    """Somebody with a browser, who notes what went wrong and whom the page asked.

    Attributes:
        page: The page in the browser.
        asked: Addresses of all requests.
        wrong: What the console and uncaught errors said.
    """

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.address = page, address
        self.asked: list[str] = []
        self.wrong: list[str] = []
        page.set_default_timeout(TIMEOUT_MS)
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda told: self.wrong.append(told.text) if told.type in ("error", "warning") else None)

    def open(self, place: str) -> Page:
        """Opens a view by its part of the address behind #, on a fresh page."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.address}/#/{place}")
        return self.page
