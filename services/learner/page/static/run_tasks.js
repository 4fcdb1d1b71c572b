// How a run does on each task: bars of domains, and a small chart of every task.
import * as api from "./api.js";
import { h, replace, say } from "./dom.js";
import { count, score } from "./format.js";
import { sparkline } from "./sparkline.js";
import { whenVisible } from "./visible.js";

const POINTS = 120;
const BATCH = 24;
const ORDERS = /** @type {Record<string, string>} */ ({ worst: "Worst first", best: "Best first", name: "By name" });

/** @typedef {{ name: string, domain: string, latest: number | null, random: number | null, final: number | null }} Task */

/** Bars: the mean score of each domain, with the random policy's as a mark. @param {Task[]} tasks */
export function domainBars(tasks) {
  const domains = new Map();
  for (const task of tasks) domains.set(task.domain, [...(domains.get(task.domain) ?? []), task]);
  const bars = h("div", { class: "bars" });
  for (const [domain, members] of [...domains, ...(domains.size > 1 ? [["all", tasks]] : [])]) {
    const value = mean(members.map((/** @type {Task} */ task) => task.final ?? task.latest));
    const random = mean(members.map((/** @type {Task} */ task) => task.random));
    bars.append(
      h("span", {}, domain, h("span", { class: "muted small" }, ` ${members.length}`)),
      h(
        "span",
        { class: "track", role: "img", "aria-label": `${domain}: ${score(value)}, random policy ${score(random)}` },
        h("span", { class: "fill", style: { width: `${100 * Math.min(1, Math.max(0, value ?? 0))}%` } }),
        random === null ? null : h("span", { class: "mark", style: { left: `${100 * Math.min(1, Math.max(0, random))}%` } }),
      ),
      h("strong", {}, score(value)),
    );
  }
  return bars;
}

/** Small charts of all tasks; those in sight are read and drawn. */
export class TaskGrid {
  /** @param {string} id @param {AbortSignal} signal */
  constructor(id, signal) {
    this.path = `runs/${encodeURIComponent(id)}/series`;
    this.signal = signal;
    /** @type {Map<string, { element: HTMLElement, chart: Element, figure: Element, seen: boolean, drawn: number, task: Task }>} */
    this.cards = new Map();
    /** @type {Set<string>} */
    this.wanted = new Set();
    this.order = "worst";
    this.fifth = false;
    const select = h("select", { "aria-label": "Order of tasks", on: { change: () => ((this.order = select.value), this.arrange()) } }, ...Object.entries(ORDERS).map(([name, title]) => h("option", { value: name }, title)));
    const fifth = h("input", { type: "checkbox", on: { change: () => ((this.fifth = fifth.checked), this.arrange()) } });
    this.search = h("input", { type: "search", placeholder: "Find a task…", "aria-label": "Find a task of this run", on: { input: () => this.arrange() } });
    this.grid = h("div", { class: "grid" });
    this.element = h("div", { class: "inputs" }, h("div", { class: "toolbar" }, this.search, select, h("label", {}, fifth, "Bottom fifth only")), this.grid);
  }

  /** @param {Task[]} tasks */
  update(tasks) {
    const first = this.cards.size === 0;
    for (const task of tasks) {
      const card = this.cards.get(task.name) ?? this.make(task);
      card.task = task;
      say(card.figure, score(task.latest ?? task.final));
    }
    if (first) this.arrange();
  }

  /** Reads the curves of tasks in sight again. */
  refresh() {
    for (const [name, card] of this.cards) if (card.seen && performance.now() - card.drawn > 20_000) this.ask(name);
  }

  /** @param {Task} task */
  make(task) {
    const figure = h("strong");
    const chart = h("div", { class: "muted small" });
    const element = h("article", { class: "taskcard", "aria-label": task.name }, h("div", { class: "line" }, h("span", { class: "name", title: task.name }, task.name), figure), chart);
    const card = { element, chart, figure, seen: false, drawn: -Infinity, task };
    this.cards.set(task.name, card);
    whenVisible(element, (seen) => { card.seen = seen; if (seen && card.drawn === -Infinity) this.ask(task.name); }, this.signal);
    return card;
  }

  arrange() {
    const value = (/** @type {Task} */ task) => task.latest ?? task.final ?? 0;
    const cards = [...this.cards.values()].sort((a, b) => (this.order === "name" ? a.task.name.localeCompare(b.task.name) : (value(a.task) - value(b.task)) * (this.order === "worst" ? 1 : -1)));
    const words = this.search.value.toLowerCase();
    const worst = new Set([...cards].sort((a, b) => value(a.task) - value(b.task)).slice(0, Math.ceil(cards.length / 5)));
    replace(this.grid, ...cards.filter((card) => card.task.name.includes(words) && (!this.fifth || worst.has(card))).map((card) => card.element));
  }

  /** Reads a task's curve, together with those of others. @param {string} name */
  ask(name) {
    if (!this.wanted.size) setTimeout(() => this.read(), 30);
    this.wanted.add(name);
  }

  async read() {
    const names = [...this.wanted].slice(0, BATCH);
    for (const name of names) this.wanted.delete(name);
    for (const name of names) /** @type {any} */ (this.cards.get(name)).drawn = performance.now();
    if (this.wanted.size) setTimeout(() => this.read(), 30);
    const asked = names.map((name) => `score/${name}`);
    const { series } = await api.get(this.path, { name: asked, points: POINTS }, this.signal).catch(() => ({ series: [] }));
    const found = new Map(series.map((/** @type {any} */ item) => [item.name.slice("score/".length), item]));
    for (const name of names) this.draw(name, /** @type {any} */ (found.get(name)));
  }

  /** @param {string} name @param {import("./curves.js").Series | undefined} series */
  draw(name, series) {
    const card = this.cards.get(name);
    if (!card) return;
    const values = series?.values.filter((_, place) => !series.superseded[place]) ?? [];
    if (!series || !values.length) return replace(card.chart, "no episode yet");
    const drawing = sparkline(values, { width: 220, height: 44, low: 0, high: 1, label: `${name}: score of ${series.total} training episodes` });
    drawing.setAttribute("preserveAspectRatio", "none");
    return replace(card.chart, drawing, `${count(series.values.length)} of ${count(series.total)} points`);
  }
}

/** @param {(number | null)[]} values */
function mean(values) {
  const there = /** @type {number[]} */ (values.filter((value) => value !== null && value !== undefined));
  return there.length ? there.reduce((sum, value) => sum + value, 0) / there.length : null;
}
