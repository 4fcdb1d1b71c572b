// The list of runs: live, searched, with what can be done with each.
import * as api from "./api.js";
import { keep } from "./chart_controls.js";
import { h, redraw, replace, say } from "./dom.js";
import { ago, count, duration, percent, score, short } from "./format.js";
import { badge, finished, runActions } from "./run_actions.js";
import { tagChip } from "./run_notes.js";
import { sparkline } from "./sparkline.js";
import { whenVisible, whileOpen } from "./visible.js";

const EVERY_MS = 2_000;
const SPARK_EVERY_MS = 15_000;
const KINDS = /** @type {const} */ ([
  ["all", "All", () => true],
  ["active", "Active", (/** @type {any} */ run) => !finished(run.state)],
  ["succeeded", "Succeeded", (/** @type {any} */ run) => run.state === "succeeded"],
  ["failed", "Failed or cancelled", (/** @type {any} */ run) => ["failed", "cancelled"].includes(run.state)],
]);

/** @type {import("./main.js").View} */
export async function view(root, path, query, signal) {
  document.title = "Runs · Newt";
  /** @type {Map<string, Row>} */
  const rows = new Map();
  /** @type {any[]} */
  let runs = [];
  let kind = query.get("state") ?? "all";
  const search = h("input", {
    type: "search",
    id: "search",
    placeholder: "Search id, owner, tag, note, label, domain…",
    "aria-label": "Search runs",
    value: query.get("q") ?? "",
    on: { input: () => (keep({ q: search.value || null }), arrange()) },
  });
  const kinds = h(
    "div",
    { class: "segments", role: "group", "aria-label": "Which runs" },
    ...KINDS.map(([name]) => {
      const pick = () => (keep({ state: name === "all" ? null : name }), (kind = name), arrange());
      return h("button", { type: "button", on: { click: pick } });
    }),
  );
  const compare = h("a", { class: "button", href: "#/compare", hidden: true }, "Compare");
  const body = h("tbody");
  const table = h(
    "table",
    { class: "runs" },
    h("caption", { class: "hidden" }, "Runs, newest first"),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("th", { scope: "col" }, h("span", { class: "hidden" }, "Selected")),
        ...["Run", "State", "Progress", "Score"].map((title) => h("th", { scope: "col" }, title)),
        h("th", { scope: "col", class: "end" }, "Actions"),
      ),
    ),
    body,
  );
  const empty = h("div", { class: "empty", hidden: true });
  const problems = h("div", { class: "problems" });
  replace(
    root,
    h(
      "div",
      { class: "heading" },
      h("h1", {}, "Runs"),
      h("div", { class: "buttons" }, compare, h("a", { class: "button primary", href: "#/new" }, "Start a run")),
    ),
    h("div", { class: "toolbar" }, search, kinds),
    problems,
    h("div", { class: "card flush" }, table, empty),
  );

  function arrange() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const test = KINDS.find(([name]) => name === kind)?.[2] ?? (() => true);
    let shown = 0;
    for (const run of runs) {
      const row = rows.get(run.id);
      if (!row) continue;
      row.element.hidden = !test(run) || !words.every((/** @type {string} */ word) => row.words.includes(word));
      if (!row.element.hidden) shown += 1;
    }
    if (body.querySelector("[hidden]:focus-within")) search.focus();
    for (const [place, [name, title, member]] of KINDS.entries()) {
      const button = kinds.children[place];
      button.setAttribute("aria-pressed", String(kind === name));
      say(button, `${title} ${runs.filter(member).length}`);
    }
    empty.hidden = shown > 0;
    table.hidden = shown === 0;
    if (!runs.length) {
      replace(empty, h("h2", {}, "No runs yet"), h("p", {}, "A run trains one agent on the tasks that you choose."));
      empty.append(h("a", { class: "button primary", href: "#/new" }, "Start the first run"));
    } else replace(empty, h("p", {}, "No run is like that."));
  }

  function select() {
    const chosen = runs.filter((run) => rows.get(run.id)?.chosen);
    const groups = grouped(chosen);
    const link = new URLSearchParams();
    for (const members of groups.values()) link.append("group", members.map((/** @type {any} */ run) => run.id).join(","));
    compare.hidden = !chosen.length;
    compare.href = `#/compare?${link}`;
    say(compare, `Compare ${chosen.length}`);
  }

  async function refresh() {
    const found = await api.get("overview", {}, signal);
    const keys = found.runs.map((/** @type {any} */ run) => run.id).join();
    const same = keys === runs.map((run) => run.id).join();
    runs = found.runs;
    for (const run of runs) {
      const row = rows.get(run.id) ?? new Row(run, signal, select, refresh);
      rows.set(run.id, row);
      row.update(run);
    }
    if (!same) {
      redraw(body, ...runs.map((run) => /** @type {Row} */ (rows.get(run.id)).element));
      for (const id of rows.keys()) if (!runs.some((run) => run.id === id)) rows.delete(id);
    }
    replace(
      problems,
      ...found.broken.map((/** @type {any} */ record) =>
        h("p", { class: "problem" }, `${record.kind} ${record.id} cannot be read: ${record.error}`),
      ),
    );
    arrange();
  }

  await refresh();
  whileOpen(EVERY_MS, refresh, signal);
}

/** @param {any[]} runs */
function grouped(runs) {
  const groups = new Map();
  for (const run of runs) groups.set(run.group, [...(groups.get(run.group) ?? []), run]);
  return groups;
}

/** A run in the list. Its elements stay, so that focus and selection do. */
class Row {
  /** @param {any} run @param {AbortSignal} signal @param {() => void} select @param {() => Promise<void>} refresh */
  constructor(run, signal, select, refresh) {
    this.id = run.id;
    this.signal = signal;
    this.refresh = refresh;
    this.words = "";
    this.state = "";
    this.visible = false;
    this.sparkAt = -Infinity;
    this.box = h("input", { type: "checkbox", "aria-label": `Select ${run.id}`, on: { change: select } });
    this.parts = {
      badge: h("td", { class: "state" }),
      stage: h("span", { class: "stage" }),
      eta: h("span", { class: "muted" }),
      meter: h("progress", { max: 1, value: 0, "aria-label": `Progress of ${run.id}` }),
      numbers: h("span", { class: "muted small" }),
      score: h("span", { class: "figure" }),
      spark: h("span", { class: "sparkplace" }),
      actions: h("td", { class: "end actions" }),
    };
    const { badge: state, stage, eta, meter, numbers, score: figure, spark, actions } = this.parts;
    const facts = [
      run.tasks === 1 ? "1 task" : `${run.tasks} tasks`,
      run.domains.length > 2 ? `${run.domains.length} domains` : run.domains.join(", "),
      run.algorithm,
      `size ${run.model}`,
      `seed ${run.seed}`,
      ...(run.owner ? [`by ${run.owner}`] : []),
    ];
    this.when = h("span");
    this.written = h("div");
    this.told = "";
    this.element = h(
      "tr",
      {},
      h("td", { class: "check" }, this.box),
      h(
        "td",
        { class: "name" },
        h("a", { href: `#/run/${encodeURIComponent(run.id)}` }, run.id),
        h("div", { class: "muted small" }, facts.join(" · "), " · ", this.when),
        this.written,
      ),
      state,
      h("td", { class: "progress" }, h("div", { class: "line" }, stage, eta), meter, numbers),
      h("td", { class: "score" }, figure, spark),
      actions,
    );
    whenVisible(this.element, (seen) => ((this.visible = seen), this.draw()), signal);
  }

  get chosen() {
    return this.box.checked;
  }

  /** @param {any} run */
  update(run) {
    const { parts } = this;
    const facts = [run.id, run.name, run.state, run.algorithm, run.model, run.preset, run.owner ?? "", ...run.domains];
    this.words = [...facts, ...Object.entries(run.labels).flat(), ...run.tags, run.notes].join(" ").toLowerCase();
    const told = JSON.stringify([run.tags, run.notes]);
    if (told !== this.told) {
      this.told = told;
      const labels = Object.entries(run.labels).map(([name, value]) => h("span", { class: "chip" }, `${name}: ${value}`));
      const chips = [...run.tags.map(tagChip), ...labels];
      const first = run.notes.split("\n").find((/** @type {string} */ line) => line.trim());
      replace(this.written, first ? h("p", { class: "small note", title: run.notes }, first.replace(/^#+\s*/, "")) : null, chips.length ? h("div", { class: "chips" }, ...chips) : null);
    }
    if (run.state !== this.state) {
      this.state = run.state;
      this.sparkAt = -Infinity;
      replace(parts.badge, badge(run.state));
      redraw(parts.actions, ...runActions(run, () => this.refresh()));
    }
    const ended = finished(run.state);
    const waits = run.waiting_on && !ended ? `waits for ${run.waiting_on}` : "";
    say(parts.stage, ended ? (run.error ?? (run.state === "succeeded" ? "done" : run.state)) : waits || run.stage);
    parts.stage.title = parts.stage.textContent;
    parts.stage.classList.toggle("error", Boolean(run.error) && run.state === "failed");
    say(parts.eta, ended ? "" : run.eta_s === null ? "" : `${duration(run.eta_s)} left`);
    parts.meter.value = run.progress;
    const speed = ended ? "" : ` · ${short(run.env_steps_per_s)} steps/s · ${short(run.updates_per_s)} updates/s`;
    say(parts.numbers, `${percent(run.progress)} · ${short(run.env_steps)} of ${short(run.total_env_steps)} env steps${speed}`);
    parts.numbers.title = `${count(run.env_steps)} env steps, ${count(run.updates)} updates, ${run.restarts} restarts`;
    say(parts.score, score(run.score));
    say(this.when, ago(run.created_at));
    this.draw();
  }

  async draw() {
    const old = performance.now() - this.sparkAt;
    if (!this.visible || old < (finished(this.state) ? Infinity : SPARK_EVERY_MS)) return;
    this.sparkAt = performance.now();
    const path = `runs/${encodeURIComponent(this.id)}/series`;
    const found = await api.get(path, { name: "score", points: 60 }, this.signal).catch(() => ({ series: [] }));
    const series = found.series[0];
    const values = series ? series.values.filter((/** @type {any} */ _, /** @type {number} */ i) => !series.superseded[i]) : [];
    if (values.length > 1) replace(this.parts.spark, sparkline(values, { low: 0, high: 1, label: `Score of ${this.id} over time` }));
  }
}
