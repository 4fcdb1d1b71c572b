// One run: how far it is, its curves, tasks, events, checkpoints and settings.
import * as api from "./api.js";
import { chartControls, zoomOf } from "./chart_controls.js";
import { h, redraw, replace, say } from "./dom.js";
import { ago, count, duration, moment, percent, score, short, size } from "./format.js";
import { attempt } from "./notices.js";
import { badge, finished, runActions } from "./run_actions.js";
import { RunCharts } from "./run_charts.js";
import { logsCard } from "./run_logs.js";
import { RunNotes } from "./run_notes.js";
import { domainBars, TaskGrid } from "./run_tasks.js";
import { RunVideos } from "./run_videos.js";

/** @type {import("./main.js").View} */
export async function view(root, [id], query, signal) {
  document.title = `${id} · Newt`;
  const path = `runs/${encodeURIComponent(id)}`;
  let [run, results] = await Promise.all([path, `${path}/results`].map((place) => api.get(place, {}, signal)));
  /** By task; simulators are asked, which takes a while, and nothing else waits for it. @type {Map<string, string>} */
  const domains = new Map();

  const state = h("span");
  const actions = h("div", { class: "buttons" });
  const waits = h("p", { class: "waits", role: "status", hidden: true });
  const warning = h("p", { class: "waits", role: "status", hidden: true });
  const failure = h("p", { class: "problem", role: "alert", hidden: true });
  const tiles = new Tiles();
  const early = !run.progress.env_steps && run.progress.total_pretrain_updates;
  const controls = chartControls(query, () => charts.show(), early ? "updates" : "env_steps");
  const charts = new RunCharts(id, controls.state, zoomOf(query), signal);
  const grid = new TaskGrid(id, signal);
  const bars = h("div");
  const events = h("tbody");
  const checkpoints = h("div");
  const videos = new RunVideos(path, id, signal);
  replace(
    root,
    h("div", { class: "heading" }, h("div", { class: "title" }, h("h1", {}, id), state), actions),
    labels(run.owner ? { by: run.owner, ...run.spec.labels } : run.spec.labels),
    new RunNotes(path, run).element,
    failure,
    waits,
    warning,
    tiles.element,
    controls.element,
    charts.element,
    h("div", { class: "two" }, card("Domains", bars, h("p", { class: "muted small" }, "Mean score: of the final evaluation, or of the latest training episodes. Mark: random policy.")), card("Checkpoints", checkpoints)),
    videos.element,
    card(`Tasks (${run.tasks.length})`, grid.element),
    h(
      "div",
      { class: "two" },
      card("Events", h("div", { class: "events", tabindex: "0", role: "region", "aria-label": "Events" }, h("table", {}, events))),
      card("Settings", settings(run.spec), exports(path, id)),
    ),
    logsCard(path, signal),
  );

  function show() {
    const { progress } = run;
    replace(state, badge(run.state));
    waits.hidden = !progress.waiting_on || finished(run.state);
    say(waits, `Waits for ${progress.waiting_on}`);
    warning.hidden = !progress.computing?.warning || finished(run.state);
    say(warning, progress.computing?.warning ?? "");
    failure.hidden = !run.error || run.state !== "failed";
    say(failure, run.error ?? "");
    tiles.show(run);
    const tasks = run.tasks.map((/** @type {string} */ name) => ({
      name,
      domain: domains.get(name) ?? "other",
      latest: progress.tasks[name]?.last_score ?? null,
      random: results.tasks[name]?.random?.corrected_score ?? null,
      final: results.tasks[name]?.final?.corrected_score ?? null,
    }));
    if (domains.size) replace(bars, domainBars(tasks));
    grid.update(tasks);
  }

  function showActions() {
    const again = h("a", { class: "button", href: `#/new?from=${encodeURIComponent(id)}` }, "New run like this");
    const compare = h("a", { class: "button", href: `#/compare?group=${encodeURIComponent(id)}` }, "Compare");
    redraw(actions, ...runActions(run, (gone) => (gone ? (location.hash = "#/") : reload())), again, compare);
  }

  async function showCheckpoints() {
    const found = await api.get(`${path}/checkpoints`, {}, signal);
    redraw(checkpoints, checkpointTable(path, id, found.checkpoints, run.tasks[0]));
  }

  async function reload() {
    const before = run.state;
    run = await api.get(path, {}, signal);
    results = await api.get(`${path}/results`, {}, signal);
    show();
    showActions();
    videos.refresh(results).catch(() => {});
    if (finished(before) && !finished(run.state)) follow();
  }

  function follow() {
    replace(events);
    charts.lane.clear();
    api.follow(`${path}/events`, tell, signal, () => charts.load().catch(() => {}));
  }

  /** @param {string} kind @param {any} data */
  function tell(kind, data) {
    if (kind === "progress") {
      const { state: now, ...progress } = data;
      const changed = now !== run.state;
      run = { ...run, state: now, progress };
      show();
      grid.refresh();
      charts.lane.wait(finished(now) ? null : progress.waiting_on);
      if (!finished(now)) charts.tell(progress);
      if (changed) attempt(reload);
    } else if (kind === "deleted") {
      location.hash = "#/";
    } else {
      charts.lane.add(data);
      events.prepend(h("tr", { class: data.kind }, h("td", { title: moment(data.time) }, ago(data.time)), h("td", {}, data.kind), h("td", {}, data.message)));
      if (["checkpoint", "evaluation"].includes(data.kind)) showCheckpoints().catch(() => {});
    }
  }

  async function readDomains() {
    const { tasks } = await api.get("tasks", {}, signal);
    for (const task of [...tasks, ...run.task_facts]) domains.set(task.name, task.domain);
    show();
  }

  show();
  showActions();
  await Promise.all([charts.load(), showCheckpoints(), videos.refresh(results), readDomains()]);
  follow();
}

/** Figures of a run. */
class Tiles {
  constructor() {
    /** @type {Record<string, { value: Element, more: Element }>} */
    this.parts = {};
    this.meter = h("progress", { max: 1, value: 0, "aria-label": "Progress" });
    this.element = h("dl", { class: "card flush tiles" });
    for (const name of ["Stage", "Time left", "Env steps", "Updates", "Score", "Trains on", "Restarts"]) {
      const value = h("span");
      const more = h("small");
      this.parts[name] = { value, more };
      const wide = name === "Stage";
      this.element.append(h("div", { class: wide ? "tile wide" : "tile" }, h("dt", {}, name), h("dd", {}, value, " ", more, wide ? this.meter : null)));
    }
  }

  /** @param {any} run */
  show(run) {
    const { progress, spec } = run;
    const done = progress.pretrain_updates + progress.updates;
    const whole = progress.total_pretrain_updates + progress.total_updates;
    const share = run.state === "succeeded" ? 1 : Math.min(1, whole ? done / whole : progress.env_steps / (progress.total_env_steps || 1));
    const scores = /** @type {any[]} */ (Object.values(progress.tasks)).map((task) => task.last_score).filter((value) => value !== null);
    const mean = scores.length ? scores.reduce((sum, value) => sum + value, 0) / scores.length : null;
    const ended = finished(run.state);
    this.meter.value = share;
    this.put("Stage", ended ? run.state : progress.stage, percent(share));
    this.put("Time left", ended ? "–" : duration(progress.eta_s), run.finished_at ? `ended ${ago(run.finished_at)}` : run.started_at ? `started ${ago(run.started_at)}` : "");
    this.put("Env steps", short(progress.env_steps), `of ${short(progress.total_env_steps)}${ended ? "" : ` · ${short(progress.env_steps_per_s)}/s`}`);
    this.put("Updates", short(done), `of ${short(whole)}${ended ? "" : ` · ${short(progress.updates_per_s)}/s`}`);
    this.put("Score", score(mean), "latest episodes");
    const on = progress.computing;
    this.put("Trains on", on?.device ?? "–", on ? `${on.precision} · ${on.compiled ? "compiled" : "not compiled"}` : "");
    this.put("Restarts", count(progress.restarts), `seed ${spec.seed}`);
  }

  /** @param {string} name @param {string} value @param {string} more */
  put(name, value, more) {
    say(this.parts[name].value, value);
    say(this.parts[name].more, more);
  }
}

/** @param {string} title @param {...Node} children */
const card = (title, ...children) => h("section", { class: "card" }, h("h2", {}, title), ...children);

/** @param {Record<string, string>} values */
function labels(values) {
  const pairs = Object.entries(values);
  return pairs.length ? h("div", { class: "chips" }, ...pairs.map(([name, value]) => h("span", { class: "chip" }, `${name}: ${value}`))) : null;
}

/** @param {string} path @param {string} id @param {any[]} found Oldest first. @param {string} task To watch them on. */
function checkpointTable(path, id, found, task) {
  if (!found.length) return h("p", { class: "muted" }, "None yet.");
  const rows = found.toReversed().map((item) => {
    const get = () => attempt(() => api.download(`${path}/checkpoints/${encodeURIComponent(item.name)}`, `${id}-${item.name}.safetensors`));
    const button = h("button", { type: "button", class: "plain", "aria-label": `Download checkpoint ${item.name}`, on: { click: get } }, "Download");
    const tune = h("a", { href: `#/new?init=${encodeURIComponent(`${id}/${item.name}`)}`, "aria-label": `Fine-tune checkpoint ${item.name}` }, "Fine-tune");
    const watch = h("a", { href: `#/play?checkpoint=${encodeURIComponent(`${id}/${item.name}`)}&task=${encodeURIComponent(task)}`, "aria-label": `Watch checkpoint ${item.name}` }, "Watch");
    return h("tr", {}, h("td", {}, item.name, item.best ? h("span", { class: "badge succeeded" }, "best") : null), h("td", { class: "number" }, score(item.score)), h("td", { class: "number" }, short(item.updates)), h("td", { class: "number" }, size(item.size_bytes)), h("td", {}, ago(item.created_at)), h("td", { class: "end" }, item.broken ? h("span", { class: "error" }, item.broken) : h("span", {}, watch, " ", tune, " ", button)));
  });
  const head = ["Name", "Score", "Updates", "Size", "Written", ""].map((title, place) => h("th", { scope: "col", class: [1, 2, 3].includes(place) ? "number" : null }, title));
  return h("div", { class: "scroll settings", tabindex: "0", role: "region", "aria-label": "Checkpoints" }, h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows)));
}

/** All but the tasks, which have a place of their own. @param {any} spec */
function settings({ tasks, ...spec }) {
  const rows = flat(spec).map(([name, value]) => h("tr", {}, h("td", {}, name), h("td", {}, value)));
  return h("div", { class: "settings", tabindex: "0", role: "region", "aria-label": "Settings" }, h("table", {}, h("tbody", {}, ...rows)));
}

/** @param {string} path @param {string} id */
function exports(path, id) {
  const button = (/** @type {string} */ format) => h("button", { type: "button", on: { click: () => attempt(() => api.download(`${path}/metrics?format=${format}`, `${id}-metrics.${format}`)) } }, `Metrics as ${format.toUpperCase()}`);
  return h("div", { class: "buttons", style: { "margin-top": "0.8rem" } }, button("csv"), button("jsonl"));
}

/** @param {any} values @param {string} [above] @returns {[string, string][]} */
function flat(values, above = "") {
  return Object.entries(values).flatMap(([name, value]) => {
    const nested = value !== null && typeof value === "object" && !Array.isArray(value);
    return nested ? flat(value, `${above}${name}.`) : [[`${above}${name}`, Array.isArray(value) ? value.join(", ") : String(value)]];
  });
}
