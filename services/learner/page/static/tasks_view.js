// All tasks: pictures, instructions, facts, and the best that any run here has done on them.
import * as api from "./api.js";
import { keep } from "./chart_controls.js";
import { h, redraw, replace, say } from "./dom.js";
import { count, score } from "./format.js";
import { whenVisible } from "./visible.js";

const SIMULATORS = /** @type {Record<string, string>} */ ({
  reachable: "Its simulator is there",
  unreachable: "Its simulator does not answer",
  "not configured": "It has no simulator here",
});

/** @type {import("./main.js").View} */
export async function view(root, path, query, signal) {
  document.title = "Tasks · Newt";
  const [known, best] = await Promise.all([api.get("tasks", {}, signal), api.get("tasks/scores", {}, signal)]);
  const cards = known.tasks.map((/** @type {any} */ task) => new Card(task, best.scores[task.name], signal));
  const domains = new Map(known.tasks.map((/** @type {any} */ task) => [task.domain, task.simulator]));
  let domain = query.get("domain") ?? "";
  const search = h("input", {
    type: "search",
    placeholder: "Find a task by name or instruction…",
    "aria-label": "Find a task",
    value: query.get("q") ?? "",
    on: { input: arrange },
  });
  const ran = h("input", { type: "checkbox", on: { change: arrange } });
  ran.checked = query.get("evaluated") === "1";
  const chips = h("div", { class: "chips", role: "group", "aria-label": "Domains" });
  const found = h("p", { class: "muted", role: "status" });
  const grid = h("div", { class: "pictures" });
  const refused = Object.values(known.refused).map((why) => h("p", { class: "problem" }, why));
  replace(
    root,
    h("div", { class: "heading" }, h("h1", {}, "Tasks"), found),
    h("div", { class: "toolbar" }, search, h("label", {}, ran, "Evaluated here only")),
    chips,
    refused.length ? h("div", { class: "problems" }, ...refused) : null,
    grid,
  );

  function arrange() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = cards.filter(
      (/** @type {Card} */ card) =>
        (!ran.checked || card.best) && words.every((/** @type {string} */ word) => card.words.includes(word)),
    );
    const number = (/** @type {string} */ name) => fits.filter((/** @type {Card} */ card) => !name || card.task.domain === name).length;
    redraw(
      chips,
      ...["", ...domains.keys()].map((name) =>
        h(
          "button",
          { type: "button", class: (domains.get(name) ?? "reachable") === "reachable" ? "chip" : "chip off", title: SIMULATORS[domains.get(name) ?? ""], id: `domain-${name}`, "aria-pressed": String(name === domain), on: { click: () => ((domain = name), arrange()) } },
          name || "All",
          h("span", { class: "muted" }, ` ${number(name)}`),
        ),
      ),
    );
    const shown = fits.filter((/** @type {Card} */ card) => !domain || card.task.domain === domain);
    say(found, shown.length === 1 ? "1 task" : `${count(shown.length)} tasks`);
    if (shown.length) replace(grid, ...shown.map((/** @type {Card} */ card) => card.element));
    else replace(grid, h("p", { class: "empty" }, "No task is like that."));
    keep({ q: search.value || null, domain: domain || null, evaluated: ran.checked ? "1" : null });
  }

  arrange();
}

/** A task; its picture is fetched when it comes into sight. */
class Card {
  /** @param {any} task @param {any} best @param {AbortSignal} signal */
  constructor(task, best, signal) {
    this.task = task;
    this.best = best;
    this.words = `${task.name} ${task.domain} ${task.split} ${task.instruction}`.toLowerCase();
    const facts = [
      `${task.obs_dim} observed`,
      `${task.action_dim} ${task.action_dim === 1 ? "action" : "actions"}`,
      `${count(task.episode_length)} steps`,
      task.has_success ? "success" : "",
      task.has_expert ? "expert" : "",
      task.split === "train" ? "" : task.split === "test" ? "held out" : task.split,
    ].filter(Boolean);
    const link = h("a", { class: "small", href: `#/new?task=${encodeURIComponent(task.name)}`, "aria-label": `Train on ${task.name}` }, "Train on it");
    const play = task.simulator === "reachable" ? h("a", { class: "small", href: `#/play?task=${encodeURIComponent(task.name)}`, "aria-label": `Play ${task.name}` }, "Play it") : null;
    this.place = h("div", { class: "picture" }, task.picture ? null : h("span", { class: "muted small" }, "no picture"));
    this.element = h(
      "article",
      { class: "card flush taskinfo", "aria-label": task.name },
      this.place,
      h(
        "div",
        { class: "about" },
        h("div", { class: "line" }, h("h2", {}, task.name), h("span", { class: "muted small" }, task.domain)),
        h("p", { class: "small" }, task.instruction),
        h("p", { class: "muted small" }, facts.join(" · ")),
        h("div", { class: "line" }, bestOf(best), h("span", {}, play, " ", link)),
      ),
    );
    let asked = !task.picture;
    const seen = async () => {
      if (asked) return;
      asked = true;
      const path = `tasks/${encodeURIComponent(task.name)}/picture`;
      const image = h("img", { alt: "", src: await api.source(path, signal) }); // its name stands beside it
      image.addEventListener("error", () => replace(this.place, h("span", { class: "muted small" }, "no picture")));
      replace(this.place, image);
    };
    whenVisible(this.element, (visible) => visible && seen().catch(() => {}), signal);
  }
}

/** @param {any} best */
function bestOf(best) {
  if (!best) return h("span", { class: "muted small" }, "not evaluated here");
  const title = `${best.kind} evaluation of ${best.run_id} after ${count(best.env_steps)} env steps, ${best.episodes} episodes`;
  return h("span", { class: "small", title }, "Best ", h("strong", {}, score(best.score)), " by ", h("a", { href: `#/run/${encodeURIComponent(best.run_id)}` }, best.run_id));
}
