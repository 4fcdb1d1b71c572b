// What happened to a run, under its curves: a bar for each attempt, marks for what went wrong, and waits.
import { h, replace } from "./dom.js";
import { moment } from "./format.js";

/** @typedef {{ time: string, kind: string, message: string, data: any }} RunEvent */
/** @typedef {{ name: string, from: number, to: number, how: string }} Span In seconds since 1970. */

const MAX_ATTEMPTS = 5;
const ENDS = new Set(["failed", "cancelled", "succeeded"]);

/** A lane that follows the x axis of a plot. */
export class EventLane {
  constructor() {
    /** @type {RunEvent[]} */
    this.events = [];
    /** @type {Span[]} */
    this.waits = [];
    /** @type {any} */
    this.plot = null;
    /** @type {(time: number, after: boolean) => number | null} */
    this.place = () => null;
    this.element = h("div", { class: "lane", role: "img", hidden: true });
  }

  clear() {
    this.events = [];
  }

  /** @param {RunEvent} event */
  add(event) {
    this.events.push(event);
    this.later();
  }

  /** Notes what the run waits for now; nobody stores it. @param {string | null} what */
  wait(what) {
    const now = Date.now() / 1000;
    const last = this.waits.at(-1);
    if (last?.how === "open" && last.name !== what) Object.assign(last, { to: now, how: "over" });
    if (what && (last?.how !== "open" || last.name !== what)) this.waits.push({ name: what, from: now, to: Infinity, how: "open" });
  }

  /** Draws once for all that is told in one go. */
  later() {
    if (this.timer) return;
    this.timer = setTimeout(() => ((this.timer = 0), this.plot && this.draw(this.plot, this.place)), 50);
  }

  /**
   * @param {any} plot
   * @param {(time: number, after: boolean) => number | null} place X of a time: of the last point before it, or the
   *   first one after it.
   */
  draw(plot, place) {
    this.plot = plot;
    this.place = place;
    const width = plot.over.clientWidth;
    if (!width) return;
    const x = (/** @type {number} */ time, after = false) => {
      const value = place(time, after);
      return value === null ? null : Math.min(width, Math.max(0, plot.valToPos(value, "x")));
    };
    const attempts = spans(this.events).slice(-MAX_ATTEMPTS);
    const rows = attempts.map((span) => this.row([bar(span, x)], span.name));
    const waits = this.waits.map((span) => bar({ ...span, how: "waits" }, x));
    if (waits.some(Boolean)) rows.push(this.row(waits, "waits"));
    const marks = this.events.filter(({ kind }) => kind === "restart" || kind === "warning").map((event) => mark(event, x));
    if (marks.some(Boolean)) rows.push(this.row(marks, "trouble"));
    this.element.hidden = rows.length === 0;
    this.element.style.setProperty("padding-left", `${plot.over.offsetLeft}px`);
    const told = [...attempts.map(({ name, how }) => `${name} ${how}`), `${marks.length} restarts and warnings`];
    this.element.setAttribute("aria-label", `Events. ${told.join("; ")}`);
    replace(this.element, ...rows);
  }

  /** @param {(Node | null)[]} children @param {string} name */
  row(children, name) {
    return h("div", { class: "lanerow" }, h("span", { class: "lanename muted" }, name), ...children);
  }
}

/** The attempts of a run. @param {RunEvent[]} events @returns {Span[]} */
function spans(events) {
  /** @type {Span[]} */
  const found = [];
  for (const { kind, time, message, data } of events) {
    if (kind !== "state") continue;
    const at = Date.parse(time) / 1000;
    const started = /^started \(attempt (\d+)\)/.exec(message);
    const last = found.at(-1);
    if (last?.how === "running" && (started || ENDS.has(data.state))) Object.assign(last, { to: at, how: started ? "restarted" : data.state });
    if (started) found.push({ name: `attempt ${started[1]}`, from: at, to: Infinity, how: "running" });
  }
  return found;
}

/** @param {Span} span @param {(time: number, after?: boolean) => number | null} x */
function bar({ name, from, to, how }, x) {
  const [left, right] = [x(from, true), x(Number.isFinite(to) ? to : Date.now() / 1000)];
  if (left === null || right === null) return null;
  const title = `${name}: ${how}, from ${moment(new Date(1000 * from).toISOString())}${Number.isFinite(to) ? ` to ${moment(new Date(1000 * to).toISOString())}` : ""}`;
  return h("span", { class: `lanebar ${how}`, title, style: { left: `${left}px`, width: `${Math.max(3, right - left)}px` } });
}

/** @param {RunEvent} event @param {(time: number) => number | null} x */
function mark({ time, kind, message }, x) {
  const left = x(Date.parse(time) / 1000);
  return left === null ? null : h("span", { class: `lanemark ${kind}`, title: `${kind}, ${moment(time)}: ${message}`, style: { left: `${left}px` } });
}
