"""Somebody who has no mouse: goes from one element to the next, and looks at each."""

from __future__ import annotations

from playwright.sync_api import Locator, Page

MOST = 900
"""Stops on the longest view."""
# Says what is wrong with where the focus is; empty where all is well, null where the document has it no more.
_LOOK = """() => {
  const at = document.activeElement;
  if (!at || at === document.body) return null;
  at.reached = true;
  const style = getComputedStyle(at);
  const what = at.outerHTML.slice(0, 200);
  if (style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 1) return `no ring: ${what}`;
  const label = at.labels?.[0]?.textContent;
  const name = at.getAttribute("aria-label") || label || at.textContent || at.title;
  if (!name?.trim() && !at.getAttribute("aria-labelledby")) return `no name: ${what}`;
  const box = at.getBoundingClientRect();
  const middle = (low, high, most) => (Math.max(low, 0) + Math.min(high, most)) / 2;
  if (box.bottom < 0 || box.top > innerHeight || !box.width) return `out of sight: ${what}`;
  const x = middle(box.left, box.right, innerWidth);
  const over = document.elementFromPoint(x, middle(box.top, box.bottom, innerHeight));
  if (!over || over.closest("#notices") || at.contains(over) || over.contains(at)) return "";
  return `${over.outerHTML.slice(0, 100)} covers ${what}`;
}"""
# What can be pressed or filled in, and was never stopped at. A group of radio buttons is one stop.
_MISSED = """() => [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']")]
  .filter((one) => one.checkVisibility() && !one.disabled && !one.reached && !(one.type === "radio" && !one.checked))
  .map((one) => one.outerHTML.slice(0, 200))"""
_FORGET = "() => document.querySelectorAll('*').forEach((one) => { one.reached = false; })"


class Keyboard:
    """Somebody's keys.

    Args:
        page: The page in the browser.
    """

    def __init__(self, page: Page) -> None:
        self._page = page

    def press(self, *keys: str) -> None:
        """Presses keys, one after the other."""
        for key in keys:
            self._page.keyboard.press(key)

    def type(self, text: str) -> None:
        """Writes where the focus is, instead of what stands there."""
        self._page.keyboard.press("Control+A")
        self._page.keyboard.type(text)

    def stands(self) -> None:
        """The focus is somewhere in the page, or on its contents as a whole, and not lost."""
        assert self._page.evaluate("document.activeElement.id === 'main'") or self._look() == ""

    def go(self, target: Locator, key: str = "Tab") -> None:
        """Goes to an element; all stops on the way are as they should be."""
        for _ in range(MOST):
            if target.evaluate("target => target === document.activeElement"):
                return
            self._page.keyboard.press(key)
            assert self._look() in ("", None)
        raise AssertionError(f"{target} is not reached by {key}")

    def walk(self) -> None:
        """Stops at everything of the view, once; all stops are as they should be, and none is missed."""
        page = self._page
        page.evaluate(_FORGET)
        page.evaluate("document.activeElement.blur()")
        first = page.locator(".skip")
        self.go(first)
        for _ in range(MOST):
            page.keyboard.press("Tab")
            found = self._look()
            if found is None or first.evaluate("first => first === document.activeElement"):
                break
            assert found == ""
        assert page.evaluate(_MISSED) == []

    def _look(self) -> str | None:
        return self._page.evaluate(_LOOK)  # type: ignore[no-any-return]
