// The live curves of one run.
import * as api from "./api.js";
import { Chart } from "./chart.js";
import { keepZoom } from "./chart_controls.js";
import { append, none, pieces, smoothed } from "./curves.js";
import { h, redraw } from "./dom.js";
import { EventLane } from "./event_lane.js";
import { count } from "./format.js";
import { ordered, SPEEDS, title, unit } from "./metric_names.js";

/** @typedef {{ element: Chart, names: string[], log: boolean }} Panel */

const POINTS = 800;
/** After so many points more, the learner thins them anew. */
const APPENDED = 1200;

/** Curves that points are appended to. */
export class RunCharts {
  /**
   * @param {string} id @param {import("./chart_controls.js").Controls} controls
   * @param {import("./chart_controls.js").Zoom} zoom @param {AbortSignal} signal
   */
  constructor(id, controls, zoom, signal) {
    this.path = `runs/${encodeURIComponent(id)}/series`;
    this.controls = controls;
    this.axis = controls.axis;
    this.zoom = zoom;
    this.signal = signal;
    this.start = 0;
    this.appended = 0;
    /** @type {Map<string, import("./curves.js").Series>} */
    this.series = new Map();
    /** @type {Map<string, Panel>} */
    this.panels = new Map();
    this.lane = new EventLane();
    this.main = h("div", { class: "charts" });
    this.losses = h("div", { class: "charts" });
    this.element = h("div", { class: "inputs" }, this.main, h("h2", {}, "Learning"), this.losses);
    this.arrange();
  }

  /** Reads all points. */
  async load() {
    const { names } = await api.get(this.path, {}, this.signal);
    const wanted = names.filter((/** @type {string} */ name) => !name.includes("/"));
    const found = wanted.length ? await api.get(this.path, { name: wanted, points: POINTS }, this.signal) : { series: [] };
    this.appended = 0;
    for (const series of found.series) this.series.set(series.name, series);
    this.start = Math.min(...found.series.map((/** @type {any} */ series) => series.time[0] ?? Infinity), Date.now() / 1000);
    this.arrange();
    this.show();
  }

  /** Appends what the run says of itself now. @param {any} progress */
  tell(progress) {
    const tasks = /** @type {any[]} */ (Object.values(progress.tasks));
    const episodes = tasks.reduce((sum, task) => sum + task.episodes, 0);
    const at = { env_steps: progress.env_steps, updates: progress.pretrain_updates + progress.updates, episodes, time: Date.now() / 1000 };
    /** @type {Record<string, number | null>} */
    const collected = { score: mean(tasks.map((task) => task.last_score)), return: mean(tasks.map((task) => task.last_return)), success: mean(tasks.map((task) => task.last_success)), env_steps_per_s: progress.env_steps_per_s };
    const { updates_behind, weights_age_s, weights_age_updates } = progress;
    const trained = { ...progress.losses, updates_behind, weights_age_s, weights_age_updates, updates_per_s: progress.updates_per_s };
    this.add("collector", collected, at, "env_steps");
    this.add("trainer", trained, at, "updates");
    this.appended += 1;
    if (this.appended > APPENDED) this.load().catch(() => {});
    else {
      this.arrange();
      this.show();
    }
  }

  /** @param {string} source @param {Record<string, number | null>} values @param {any} at @param {"env_steps" | "updates"} counter */
  add(source, values, at, counter) {
    for (const [name, value] of Object.entries(values)) {
      if (value === null || value === undefined) continue;
      const series = this.series.get(name) ?? none(name, source);
      const last = series[counter].at(-1);
      if (last === at[counter]) continue; // nothing was done
      this.series.set(name, series);
      append(series, at, value);
    }
  }

  /** Makes the charts that there are series for. */
  arrange() {
    const group = `run-${this.path}`;
    const panel = (/** @type {string} */ key, /** @type {any} */ options, /** @type {string[]} */ names, log = false) => {
      if (!this.panels.has(key)) this.panels.set(key, { element: new Chart({ group, zoomed: (range) => this.zoomTo(range), ...options }, this.signal), names, log });
      return /** @type {Panel} */ (this.panels.get(key)).element.element;
    };
    const main = [
      panel("score", { title: "Score", unit: "mean over tasks", big: true, fixed: [-0.02, 1.02], below: this.lane.element, drawn: (/** @type {any} */ plot) => this.lane.draw(plot, this.place()) }, ["score", "eval_score"]),
      panel("return", { title: "Return", unit: "mean over tasks" }, ["return"]),
      ...(this.series.has("success") || this.series.has("eval_success") ? [panel("success", { title: "Success", unit: "mean over tasks that define it", fixed: [-0.02, 1.02] }, ["success", "eval_success"])] : []),
      ...Object.entries(SPEEDS).map(([name, [title, unit]]) => panel(name, { title, unit }, [name])),
    ];
    const others = ordered([...this.series.keys()].filter((name) => this.series.get(name)?.source === "trainer" && !(name in SPEEDS)));
    const losses = others.map((name) => panel(name, { title: title(name), unit: unit(name) }, [name], true));
    if (this.main.childElementCount !== main.length) redraw(this.main, ...main);
    if (this.losses.childElementCount !== losses.length) redraw(this.losses, ...losses);
  }

  /** Shows the same part of the x axis in all charts, seen or not. @param {import("./chart_controls.js").Zoom} range */
  zoomTo(range) {
    keepZoom((this.zoom = range));
    for (const panel of this.panels.values()) panel.element.zoomTo(range);
  }

  /** Where a time is on the x axis, by the points that are known. @returns {(time: number, after: boolean) => number | null} */
  place() {
    const { axis } = this.controls;
    if (axis === "time") return (time) => time - this.start;
    const [longest] = [...this.series.values()].sort((one, other) => other.time.length - one.time.length);
    return (time, after) => {
      if (!longest?.time.length) return null;
      const at = longest.time.findIndex((known) => known > time);
      const place = after ? (at < 0 ? longest.time.length - 1 : at) : (at < 0 ? longest.time.length : at) - 1;
      return longest[axis][Math.max(0, place)] ?? 0;
    };
  }

  /** Draws all charts anew. */
  show() {
    if (this.axis !== this.controls.axis) {
      this.axis = this.controls.axis;
      keepZoom((this.zoom = null)); // its numbers are of the other axis
    }
    for (const panel of this.panels.values()) {
      const found = panel.names.map((name) => this.series.get(name)).filter((series) => series !== undefined);
      const { log, axis } = this.controls;
      const lines = found.flatMap((series, colour) => this.lines(series, colour));
      panel.element.show(lines, { axis, log: log && panel.log, range: this.zoom }, note(found));
    }
  }

  /** @param {import("./curves.js").Series} series @param {number} colour @returns {import("./chart.js").Line[]} */
  lines(series, colour) {
    const { axis, smooth } = this.controls;
    const { live, old } = pieces(series, axis, this.start);
    const label = LABELS[series.name] ?? title(series.name);
    const past = old.slice(-6).map((piece) => ({ ...piece, label: "", colour: 6, faint: 0.6 }));
    if (series.source === "evaluation") return [...past, { ...live, label, colour, dots: true, dash: true }];
    const raw = smooth ? [{ ...live, label: "", colour, faint: 0.28 }] : [];
    return [...past, ...raw, { ...(smooth ? smoothed(live, smooth) : live), label, colour }];
  }
}

/** @type {Record<string, string>} */
const LABELS = { score: "training episodes", eval_score: "evaluations", return: "training episodes", success: "training episodes", eval_success: "evaluations" };

/** How many points are drawn. @param {import("./curves.js").Series[]} found */
function note(found) {
  const [first] = found;
  if (!first) return "";
  const gone = first.superseded.some(Boolean) ? " · grey: superseded when the run resumed" : "";
  return `${count(first.values.length)} of ${count(first.total)} points${gone}`;
}

/** @param {(number | null)[]} values */
function mean(values) {
  const there = /** @type {number[]} */ (values.filter((value) => value !== null && value !== undefined));
  return there.length ? there.reduce((sum, value) => sum + value, 0) / there.length : null;
}
