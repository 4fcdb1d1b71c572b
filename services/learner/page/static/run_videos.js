// Videos of a run's agent by task: of its final evaluation, and of evaluations that were asked for.
import * as api from "./api.js";
import { h, replace, say } from "./dom.js";
import { count, score } from "./format.js";
import { whenVisible } from "./visible.js";

/** @typedef {{ name: string, steps: number, path: string, videos: Record<string, string>, scores: Record<string, number> }} Source */

/** @param {string} path Of the run. @param {string} id @param {any} results @param {AbortSignal} signal @returns {Promise<HTMLElement | null>} */
export async function videosCard(path, id, results, signal) {
  const found = await api.get("evaluations", { run_id: id }, signal).catch(() => ({ evaluations: [] }));
  /** @type {Source[]} */
  const sources = found.evaluations.filter((/** @type {any} */ job) => Object.keys(job.videos).length).map((/** @type {any} */ job) => ({
    name: `${job.request.checkpoint.replace(`${id}/`, "")}, ${job.request.mode ?? "as trained"}`,
    steps: job.result?.env_steps ?? 0,
    path: `evaluations/${encodeURIComponent(job.id)}/videos`,
    videos: job.videos,
    scores: scores(job.result?.tasks ?? {}),
  }));
  if (Object.keys(results.videos).length) {
    const final = Object.entries(results.tasks).map(([task, { final: stats }]) => [task, stats]);
    const steps = results.evaluations.findLast((/** @type {any} */ one) => one.kind === "final")?.env_steps ?? Infinity;
    sources.push({ name: "final evaluation", steps, path: `${path}/videos`, videos: results.videos, scores: scores(Object.fromEntries(final)) });
  }
  if (!sources.length) return null;
  sources.sort((one, other) => one.steps - other.steps);
  const grid = h("div", { class: "videos" });
  const newest = sources.length - 1;
  const slider = h("input", { type: "range", min: 0, max: newest, value: newest, "aria-label": "Checkpoint", hidden: !newest, on: { input: show } });
  const shown = h("output", { class: "muted" });
  const find = h("input", { type: "search", placeholder: "Find a task…", "aria-label": "Find a video", on: { input: show } });

  function show() {
    const source = sources[Number(slider.value)];
    const name = Number.isFinite(source.steps) ? `${source.name} · ${count(source.steps)} env steps` : source.name;
    say(shown, name);
    slider.setAttribute("aria-valuetext", name);
    const tasks = Object.keys(source.videos).filter((task) => task.includes(find.value.toLowerCase()));
    replace(grid, ...tasks.map((task) => video(`${source.path}/${encodeURIComponent(source.videos[task])}`, task, source.scores[task] ?? null, signal)));
  }
  show();
  return h("section", { class: "card", "aria-label": "Videos" }, h("h2", {}, "Videos"), h("div", { class: "toolbar" }, find, slider, shown), grid);
}

/** A video, read when it is seen. @param {string} path @param {string} task @param {number | null} value @param {AbortSignal} signal */
function video(path, task, value, signal) {
  const player = h("video", { controls: true, loop: true, muted: true, playsinline: true, preload: "metadata", "aria-label": task });
  let asked = false;
  const load = async () => {
    asked = true;
    player.src = await api.source(path, signal);
  };
  whenVisible(player, (seen) => seen && !asked && load().catch(() => {}), signal);
  return h("figure", {}, player, h("figcaption", { class: "line small" }, h("span", {}, task), h("strong", {}, score(value))));
}

/** @param {Record<string, any>} tasks */
const scores = (tasks) => Object.fromEntries(Object.entries(tasks).filter(([, stats]) => stats).map(([task, stats]) => [task, stats.corrected_score]));
