// Videos of a run's agent by task: of its final evaluation, and of evaluations that were asked for.
import * as api from "./api.js";
import { h, replace } from "./dom.js";
import { score } from "./format.js";
import { whenVisible } from "./visible.js";

/** @typedef {{ name: string, path: string, videos: Record<string, string>, scores: Record<string, number> }} Source */

/** @param {string} path Of the run. @param {string} id @param {any} results @param {AbortSignal} signal @returns {Promise<HTMLElement | null>} */
export async function videosCard(path, id, results, signal) {
  const found = await api.get("evaluations", { run_id: id }, signal).catch(() => ({ evaluations: [] }));
  /** @type {Source[]} */
  const sources = found.evaluations.toReversed().filter((/** @type {any} */ job) => Object.keys(job.videos).length).map((/** @type {any} */ job) => ({
    name: `${job.request.checkpoint}, ${job.request.mode ?? "as trained"} (${job.id})`,
    path: `evaluations/${encodeURIComponent(job.id)}/videos`,
    videos: job.videos,
    scores: scores(job.result?.tasks ?? {}),
  }));
  if (Object.keys(results.videos).length) {
    const final = Object.entries(results.tasks).map(([task, { final: stats }]) => [task, stats]);
    sources.unshift({ name: "Final evaluation", path: `${path}/videos`, videos: results.videos, scores: scores(Object.fromEntries(final)) });
  }
  if (!sources.length) return null;
  const grid = h("div", { class: "videos" });
  const select = h("select", { "aria-label": "Videos of", on: { change: show } }, ...sources.map(({ name }, place) => h("option", { value: place }, name)));
  const find = h("input", { type: "search", placeholder: "Find a task…", "aria-label": "Find a video", on: { input: show } });

  function show() {
    const source = sources[Number(select.value)];
    const tasks = Object.keys(source.videos).filter((task) => task.includes(find.value.toLowerCase()));
    replace(grid, ...tasks.map((task) => video(`${source.path}/${encodeURIComponent(source.videos[task])}`, task, source.scores[task] ?? null, signal)));
  }
  show();
  return h("section", { class: "card", "aria-label": "Videos" }, h("h2", {}, "Videos"), h("div", { class: "toolbar" }, find, select), grid);
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
