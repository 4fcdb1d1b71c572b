// Watch and play: choose a model and a task, and see it act; or play yourself.
import * as api from "./api.js";
import { refusedToMake, unless } from "./caller.js";
import { keep } from "./chart_controls.js";
import { h, pressed, replace, say } from "./dom.js";
import { PlaySession } from "./play_session.js";

/** @type {import("./main.js").View} */
export async function view(root, path, query, signal) {
  document.title = "Play · Newt";
  const asked = ["overview", "checkpoints", "tasks"].map((place) => api.get(place, {}, signal));
  const [runs, imported, known] = await Promise.all(asked);
  const there = known.tasks.filter((/** @type {any} */ task) => task.simulator === "reachable");
  const models = [
    ...runs.runs.flatMap((/** @type {any} */ run) => [run.id, `${run.id}/best`]),
    ...imported.checkpoints.filter((/** @type {any} */ item) => !item.broken).map((/** @type {any} */ item) => `imported/${item.name}`),
  ];
  const model = choice("checkpoint", "Model", "no model: expert, random, or you", models, query.get("checkpoint") ?? "");
  const task = choice("task", "Task", "such as pygame-highway", there.map((/** @type {any} */ item) => item.name), query.get("task") ?? "");
  const seed = h("input", { type: "text", inputmode: "numeric", id: "play-seed", value: query.get("seed") ?? "0", autocomplete: "off" });
  const problem = h("p", { class: "error", role: "alert" });
  const start = unless(h("button", { class: "primary", type: "submit" }, "Start"), refusedToMake());
  const stage = h("div", { class: "playing" }, h("p", { class: "empty" }, there.length ? "Choose a task, and a model if you like; then press Start." : "No simulator answers: start one, and load this page again."));
  /** @type {AbortController | null} */
  let current = null;
  const form = h(
    "form",
    { class: "card playform", on: { submit: begin } },
    model.element,
    task.element,
    h("div", { class: "field" }, h("label", { for: "play-seed" }, "Seed"), seed),
    start,
    problem,
  );
  replace(root, h("div", { class: "heading" }, h("h1", {}, "Watch and play")), form, stage);
  signal.addEventListener("abort", () => current?.abort(), { once: true });

  /** @param {Event} event */
  async function begin(event) {
    event.preventDefault();
    say(problem, "");
    if (!/^\d{1,15}$/.test(seed.value.trim())) return say(problem, "Seed: expected a whole number.");
    keep({ checkpoint: model.input.value || null, task: task.input.value || null, seed: seed.value.trim() });
    return pressed(start, play).catch((error) => say(problem, error instanceof Error ? error.message : String(error)));
  }

  async function play() {
    current?.abort();
    const begun = await api.post("plays", { task: task.input.value.trim(), checkpoint: model.input.value.trim() || null, seed: Number(seed.value) });
    current = new AbortController();
    if (signal.aborted) return await api.remove(`plays/${begun.id}`);
    const session = new PlaySession(begun, current.signal);
    replace(stage, session.element);
    session.follow();
  }
}

/** An input with suggestions. @param {string} name @param {string} label @param {string} hint @param {string[]} options @param {string} value */
function choice(name, label, hint, options, value) {
  const input = h("input", { type: "text", id: `play-${name}`, list: `play-${name}s`, value, placeholder: hint, autocomplete: "off", spellcheck: "false" });
  const list = h("datalist", { id: `play-${name}s` }, ...options.map((option) => h("option", { value: option })));
  return { input, element: h("div", { class: "field" }, h("label", { for: `play-${name}` }, label), input, list) };
}
