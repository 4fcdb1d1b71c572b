// Work for what is seen: elements out of sight wait.

/** @type {WeakMap<Element, (seen: boolean) => void>} */
const watched = new WeakMap();
const observer = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) watched.get(entry.target)?.(entry.isIntersecting);
  },
  { rootMargin: "200px" },
);

/**
 * Tells whenever an element comes into sight or leaves it, until the signal ends.
 * @param {Element} element
 * @param {(seen: boolean) => void} tell
 * @param {AbortSignal} signal
 */
export function whenVisible(element, tell, signal) {
  watched.set(element, tell);
  observer.observe(element);
  signal.addEventListener("abort", () => observer.unobserve(element), { once: true });
}

/**
 * Calls again and again while the tab is seen, until the signal ends; never twice at once.
 * @param {number} everyMs
 * @param {() => Promise<any>} work
 * @param {AbortSignal} signal
 */
export async function whileOpen(everyMs, work, signal) {
  while (!signal.aborted) {
    if (!document.hidden) await work().catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}
