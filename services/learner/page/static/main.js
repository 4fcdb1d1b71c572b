// Shows the view that the address names, and whether the learner has what it needs.
import * as api from "./api.js";
import { caller } from "./caller.js";
import { focusMain, h, replace, say } from "./dom.js";
import { count } from "./format.js";
import * as token from "./token.js";
import { whileOpen } from "./visible.js";

/**
 * A view fills an element, and stops all it does when the signal ends.
 * @typedef {(root: HTMLElement, path: string[], query: URLSearchParams, signal: AbortSignal) => Promise<void>} View
 */

/** Views are loaded when they are shown. @type {Record<string, () => Promise<{ view: View }>>} */
const VIEWS = {
  runs: () => import("./runs_view.js"),
  run: () => import("./run_view.js"),
  new: () => import("./start_view.js"),
  compare: () => import("./compare_view.js"),
  tasks: () => import("./tasks_view.js"),
  play: () => import("./play_view.js"),
};
let current = new AbortController();
let first = true;

async function show() {
  const [place, query] = location.hash.replace(/^#\/?/, "").split("?");
  const path = place.split("/").filter(Boolean).map(decodeURIComponent);
  const name = Object.hasOwn(VIEWS, path[0] ?? "") ? path[0] : "runs";
  current.abort();
  current = new AbortController();
  const root = /** @type {HTMLElement} */ (document.getElementById("main"));
  for (const link of document.querySelectorAll("[data-nav]")) {
    if (link.getAttribute("data-nav") === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const signal = current.signal;
  replace(root, h("p", { class: "empty", role: "status" }, "Loading…"));
  if (!first) {
    root.focus({ preventScroll: true }); // a screen reader begins at the new view
    scrollTo(0, 0);
  }
  first = false;
  try {
    const [{ view }] = await Promise.all([VIEWS[name](), caller()]);
    if (signal.aborted) return;
    root.className = `view-${name}`;
    await view(root, path.slice(1), new URLSearchParams(query ?? ""), signal);
  } catch (error) {
    if (signal.aborted) return;
    const message = error instanceof Error ? error.message : String(error);
    replace(root, h("div", { class: "empty", role: "alert" }, h("h1", {}, "This cannot be shown"), h("p", {}, message)));
  }
}

async function showHealth() {
  const place = /** @type {HTMLElement} */ (document.getElementById("health"));
  const away = { ready: false, missing: { learner: "does not answer" } };
  const { ready, missing } = await api.get("dependencies").catch(() => away);
  const names = Object.keys(missing);
  place.className = `health ${ready ? "good" : "bad"}`;
  place.title = Object.entries(missing).map(([name, why]) => `${name}: ${why}`).join("\n");
  say(place, ready ? "Ready" : `Missing: ${names.slice(0, 3).join(", ")}${names.length > 3 ? ", …" : ""}`);
}

/** Who one is, where tokens have names. */
async function showCaller() {
  const place = /** @type {HTMLElement} */ (document.getElementById("caller"));
  const { name, role, quotas } = await caller();
  if (!name) return;
  const limits = Object.entries(quotas).filter(([, most]) => most !== null).map(([what, most]) => `${what.replace("_", " ")}: ${count(most)}`);
  const leave = h("button", { type: "button", class: "plain", on: { click: token.forget } }, "Leave");
  replace(place, h("span", { title: limits.join("\n") }, `${name} · ${role}`), " ", leave);
}

window.addEventListener("hashchange", show);
document.querySelector(".skip")?.addEventListener("click", (event) => {
  event.preventDefault(); // the address names a view
  focusMain();
});
show();
showCaller();
whileOpen(10_000, showHealth, new AbortController().signal);
