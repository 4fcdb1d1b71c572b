// Runs and groups of seeds beside each other: what is set differently, evaluation scores with bands, any metric.
import * as api from "./api.js";
import { Chart } from "./chart.js";
import { chartControls, keep, keepZoom, zoomOf } from "./chart_controls.js";
import { pieces, smoothed } from "./curves.js";
import { h, replace } from "./dom.js";
import { count, score } from "./format.js";
import { markdown } from "./markdown.js";
import { title, unit } from "./metric_names.js";
import { attempt } from "./notices.js";
import { reportFile, save, table } from "./report_file.js";
import { finished } from "./run_actions.js";
import { whileOpen } from "./visible.js";

const EVERY_MS = 10_000;
const POINTS = 400;
/** The two charts have axes of their own. */
const METRIC_ZOOM = "metric-zoom";
const STATISTICS = /** @type {Record<string, string>} */ ({ iqm: "Interquartile mean", mean: "Mean" });

/** @type {import("./main.js").View} */
export async function view(root, path, query, signal) {
  document.title = "Compare · Newt";
  const groups = query.getAll("group").map((ids) => ids.split(",").filter(Boolean)).filter((ids) => ids.length);
  const { runs } = await api.get("overview", {}, signal);
  const known = new Map(runs.map((/** @type {any} */ run) => [run.id, run]));
  const heading = h("div", { class: "heading" }, h("h1", {}, "Compare"));
  const picker = adder(runs, groups);
  if (!groups.length) {
    replace(root, heading, h("section", { class: "card" }, h("h2", {}, "Choose what to compare"), picker));
    return;
  }
  let statistic = query.get("statistic") === "mean" ? "mean" : "iqm";
  let metric = query.get("metric") ?? "score";
  let zoom = zoomOf(query);
  let metricZoom = zoomOf(query, METRIC_ZOOM);
  /** @type {any} */
  let found = null;
  /** @type {Map<string, import("./curves.js").Series | undefined>} */
  let series = new Map();

  const names = groups.map((ids) => groupName(ids.map((id) => known.get(id)).filter(Boolean), ids));
  const statistics = h("select", { "aria-label": "Statistic" }, ...Object.entries(STATISTICS).map(([name, text]) => h("option", { value: name, selected: name === statistic }, text)));
  statistics.addEventListener("change", () => {
    statistic = statistics.value;
    keep({ statistic });
    refresh().catch(() => {});
  });
  const metrics = h("select", { "aria-label": "Metric" });
  metrics.addEventListener("change", () => {
    metric = metrics.value;
    keep({ metric });
    refresh().catch(() => {});
  });
  const controls = chartControls(query, draw);
  let axis = controls.state.axis;
  const scores = new Chart({ title: "Evaluation score", unit: "over all tasks, with 95% bootstrap bands over seeds", big: true, fixed: [-0.02, 1.02], zoomed: (range) => keepZoom((zoom = range)) }, signal);
  const lines = new Chart({ title: title(metric), unit: unit(metric), big: true, zoomed: (range) => keepZoom((metricZoom = range), METRIC_ZOOM) }, signal);
  const differences = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Settings that are different" });
  const finals = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Final scores" });
  replace(
    root,
    heading,
    h("section", { class: "card" }, h("h2", {}, "Groups"), chosen(groups, names), h("details", {}, h("summary", {}, "Add runs"), picker)),
    h("section", { class: "card" }, h("h2", {}, "What is different"), differences),
    h("div", { class: "toolbar" }, h("label", {}, "Statistic", statistics)),
    scores.element,
    h("section", { class: "card" }, h("h2", {}, "Final scores"), finals),
    h("div", { class: "toolbar" }, h("label", {}, "Metric", metrics), controls.element),
    lines.element,
    reportCard(report),
  );

  /** @param {string} name @param {string} text */
  async function report(name, text) {
    if (!found) await refresh();
    const points = found.groups.flatMap((/** @type {any} */ group, /** @type {number} */ place) => group.curve.map((/** @type {any} */ point) => [names[place], point.env_steps, point.value, point.low, point.high, point.seeds]));
    const records = await Promise.all(groups.flat().map((id) => api.get(`runs/${encodeURIComponent(id)}`, {}, signal)));
    const group = (/** @type {string} */ id) => names[groups.findIndex((ids) => ids.includes(id))];
    const listed = records.map(({ id, spec, state }) => h("tr", {}, ...[group(id), id, spec.seed, state].map((value) => h("td", {}, value))));
    const head = h("tr", {}, ...["Group", "Run", "Seed", "State"].map((word) => h("th", {}, word)));
    const noted = records.filter((run) => run.notes).flatMap(({ id, notes }) => [h("h3", {}, `Notes of ${id}`), markdown(notes)]);
    const parts = [
      h("h2", {}, "What is different"),
      differenceTable(found.differences, names),
      await scores.picture(),
      table("scores.csv", [["group", "env_steps", "value", "low", "high", "seeds"], ...points]),
      h("h2", {}, "Final scores"),
      finalTable(found.groups, names),
      await lines.picture(),
      h("h2", {}, "Runs"),
      h("table", {}, head, ...listed),
      ...noted,
    ];
    save("report.html", reportFile(name, text, parts));
  }

  async function refresh() {
    const ids = groups.flat();
    found = await api.get("compare", { group: groups.map((group) => group.join(",")), statistic }, signal);
    const read = ids.map(async (id) => {
      const reply = await api.get(`runs/${encodeURIComponent(id)}/series`, { name: metric, points: POINTS }, signal);
      return /** @type {const} */ ([id, reply.series[0]]);
    });
    series = new Map(await Promise.all(read));
    draw();
  }

  function draw() {
    if (!found) return;
    scores.show(
      found.groups.map((/** @type {any} */ group, /** @type {number} */ place) => ({
        label: names[place],
        colour: place,
        x: group.curve.map((/** @type {any} */ point) => point.env_steps),
        y: group.curve.map((/** @type {any} */ point) => point.value),
        ...(group.runs.length > 1 ? { low: group.curve.map((/** @type {any} */ point) => point.low), high: group.curve.map((/** @type {any} */ point) => point.high) } : {}),
        dots: true,
      })),
      { axis: "env_steps", log: false, range: zoom },
      "Over env steps of a run. Drag to zoom, double-click for all.",
    );
    const { smooth, log } = controls.state;
    if (axis !== controls.state.axis) {
      axis = controls.state.axis;
      keepZoom((metricZoom = null), METRIC_ZOOM); // its numbers are of the other axis
    }
    const drawn = groups.flatMap((ids, place) =>
      ids.flatMap((id) => {
        const one = series.get(id);
        if (!one) return [];
        const { live } = pieces(one, axis, one.time[0] ?? 0);
        const label = ids.length > 1 ? `${names[place]}, seed ${known.get(id)?.seed ?? id}` : names[place];
        return [{ ...(smooth ? smoothed(live, smooth) : live), label, colour: place }];
      }),
    );
    const all = [...series.values()].filter((one) => one !== undefined);
    const total = all.reduce((sum, one) => sum + one.total, 0);
    const shown = all.reduce((sum, one) => sum + one.values.length, 0);
    lines.rename(title(metric), unit(metric));
    lines.show(drawn, { axis, log, range: metricZoom }, `${count(shown)} of ${count(total)} points`);
    replace(differences, differenceTable(found.differences, names));
    replace(finals, finalTable(found.groups, names));
  }

  const { names: all } = await api.get(`runs/${encodeURIComponent(groups[0][0])}/series`, {}, signal);
  const single = all.filter((/** @type {string} */ name) => !name.includes("/"));
  if (!single.includes(metric)) single.unshift(metric);
  replace(metrics, ...single.map((/** @type {string} */ name) => h("option", { value: name, selected: name === metric }, title(name))));
  await refresh();
  const active = groups.flat().some((id) => !finished(known.get(id)?.state ?? "succeeded"));
  if (active) whileOpen(EVERY_MS, refresh, signal);
}

/** Where a report is written. @param {(title: string, text: string) => Promise<void>} made */
function reportCard(made) {
  const name = h("input", { type: "text", id: "report-title", value: "Comparison of runs" });
  const text = h("textarea", { id: "report-text", rows: 6 });
  const save = h("button", { type: "button", class: "primary", on: { click: () => attempt(() => made(name.value, text.value)) } }, "Save as one HTML file");
  return h(
    "details",
    { class: "card" },
    h("summary", {}, "Report"),
    h("div", { class: "inputs" }, h("label", { for: "report-title" }, "Title"), name, h("label", { for: "report-text" }, "Text (Markdown)"), text, h("p", { class: "muted small" }, "With it: what is different, both charts as they are now, the table, and the runs with their notes. The file opens without a server."), save),
  );
}

/** What a group is called: what its labels or names say. @param {any[]} runs @param {string[]} ids */
function groupName(runs, ids) {
  const first = runs[0];
  if (!first || ids.length === 1) return ids[0];
  const label = first.labels.variant ?? (first.name || ids[0]);
  return `${label} (${ids.length} seeds)`;
}

/** @param {string[][]} groups */
function address(groups) {
  const query = new URLSearchParams(location.hash.split("?")[1] ?? "");
  query.delete("group");
  for (const ids of groups) query.append("group", ids.join(","));
  return `#/compare?${query}`;
}

/** @param {string[][]} groups @param {string[]} names */
function chosen(groups, names) {
  const rows = groups.map((ids, place) => {
    const without = () => (location.hash = address(groups.filter((_, other) => other !== place)));
    const members = ids.map((id) => h("a", { class: "small", href: `#/run/${encodeURIComponent(id)}` }, id));
    const swatch = h("span", { class: "swatch", style: { background: `var(--c${place % 8})` } });
    const out = h("button", { type: "button", class: "plain", "aria-label": `Leave out ${names[place]}`, on: { click: without } }, "×");
    return h("div", { class: "group" }, h("strong", {}, swatch, names[place]), ...(ids.length > 1 ? members : []), out);
  });
  return h("div", { class: "picker" }, ...rows);
}

/** Runs that can be added, seeds of a group together. @param {any[]} runs @param {string[][]} groups */
function adder(runs, groups) {
  const taken = new Set(groups.flat());
  /** @type {Map<string, any[]>} */
  const free = new Map();
  for (const run of runs) if (!taken.has(run.id)) free.set(run.group, [...(free.get(run.group) ?? []), run]);
  if (!free.size) return h("p", { class: "muted" }, runs.length ? "All runs are there." : "There are no runs yet.");
  const rows = [...free.values()].map((members) => {
    const ids = members.map((run) => run.id);
    const facts = `${members[0].tasks} tasks · ${members[0].algorithm} · size ${members[0].model} · ${members.map((run) => run.state).join(", ")}`;
    return h("div", { class: "group" }, h("a", { class: "button", href: address([...groups, ids]), "aria-label": `Add ${groupName(members, ids)}` }, "Add"), h("strong", {}, groupName(members, ids)), h("span", { class: "muted small" }, facts));
  });
  return h("div", { class: "picker" }, ...rows);
}

/** @param {any[]} differences @param {string[]} names */
function differenceTable(differences, names) {
  if (names.length < 2) return h("p", { class: "muted" }, "Add another run or group.");
  if (!differences.length) return h("p", { class: "muted" }, "Nothing but seeds and names.");
  const head = h("tr", {}, h("th", { scope: "col" }, "Setting"), ...names.map((name) => h("th", { scope: "col" }, name)));
  const rows = differences.map(({ setting, values }) => h("tr", {}, h("th", { scope: "row" }, setting), ...values.map((/** @type {any} */ value) => h("td", {}, written(value)))));
  return h("table", {}, h("thead", {}, head), h("tbody", {}, ...rows));
}

/** @param {any[]} groups @param {string[]} names */
function finalTable(groups, names) {
  const head = ["Group", "Seeds", "Tasks", "Score", "95% interval"].map((text, place) => h("th", { scope: "col", class: place ? "number" : null }, text));
  const rows = groups.map(({ final, runs, tasks }, place) => {
    const swatch = h("span", { class: "swatch", style: { background: `var(--c${place % 8})` } });
    const interval = final?.low === null || !final ? "–" : `${score(final.low)} to ${score(final.high)}`;
    const cells = [`${final?.seeds ?? 0} of ${runs.length}`, count(tasks), score(final?.value), interval];
    return h("tr", {}, h("th", { scope: "row" }, swatch, names[place]), ...cells.map((text) => h("td", { class: "number" }, text)));
  });
  return h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows));
}

/** @param {any} value */
function written(value) {
  if (Array.isArray(value)) return value.length > 6 ? `${value.slice(0, 6).join(", ")} and ${value.length - 6} more` : value.join(", ");
  return typeof value === "string" ? value : JSON.stringify(value);
}
