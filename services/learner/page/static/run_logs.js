// The last lines of what a run's processes say; read while somebody looks.
import * as api from "./api.js";
import { h, redraw, replace, say } from "./dom.js";
import { ago, size } from "./format.js";
import { whileOpen } from "./visible.js";

const EVERY_MS = 3_000;
/** Told once for all lines, or better elsewhere. */
const LEFT_OUT = new Set(["timestamp", "level", "event", "service", "request_id", "run"]);

/** @param {string} path Of the run. @param {AbortSignal} signal @returns {HTMLElement} */
export function logsCard(path, signal) {
  let chosen = "";
  /** @type {any[]} */
  let logs = [];
  const which = h("div", { class: "segments", role: "group", "aria-label": "Which process" });
  const about = h("span", { class: "muted small" });
  const text = h("pre", { class: "code logs", tabindex: "0", role: "region", "aria-label": "Log" });
  const body = h("div", {}, h("div", { class: "toolbar" }, which, about), text);
  const element = h("details", { class: "card section" }, h("summary", {}, h("h2", { class: "title" }, "Logs")), body);

  function show() {
    const log = logs.find((log) => log.process === chosen) ?? logs[0];
    which.hidden = logs.length === 0;
    redraw(which, ...logs.map(({ process }) => h("button", { type: "button", id: `log-${process}`, "aria-pressed": String(process === log.process), on: { click: () => ((chosen = process), show()) } }, process)));
    if (!log) return replace(text, "Nothing was said yet.");
    say(about, `${size(log.size_bytes)}, last ${ago(log.modified_at)}`);
    const last = text.scrollTop + text.clientHeight >= text.scrollHeight - 8;
    const shown = `${chosen}\n${log.lines.join("\n")}`;
    if (text.dataset.shown === shown) return undefined;
    const first = text.dataset.shown?.split("\n", 1)[0] !== chosen;
    text.dataset.shown = shown;
    replace(text, ...log.lines.map(line));
    if (last || first) text.scrollTop = text.scrollHeight; // whoever reads further up stays there
    return undefined;
  }

  let reading = false;
  element.addEventListener("toggle", () => {
    if (!element.open || reading) return;
    reading = true;
    const read = async () => {
      if (!element.open) return;
      logs = (await api.get(`${path}/logs`, { lines: 200 }, signal)).logs;
      show();
    };
    whileOpen(EVERY_MS, read, signal);
  });
  return element;
}

/** A line as people read it, coloured if it is a warning or worse. @param {string} text */
function line(text) {
  let told;
  try {
    told = JSON.parse(text);
  } catch {
    return h("span", {}, `${text}\n`);
  }
  if (told === null || typeof told !== "object") return h("span", {}, `${text}\n`);
  const more = Object.entries(told).filter(([name]) => !LEFT_OUT.has(name)).map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`);
  const time = String(told.timestamp ?? "").slice(11, 19);
  const bad = ["warning", "error", "critical"].includes(told.level);
  return h("span", { class: bad ? "error" : null }, `${time} ${told.event ?? ""} ${more.join(" ")}\n`);
}
