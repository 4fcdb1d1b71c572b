// Videos of a run's agent by task: of its own evaluations, and of those that were asked for.
import * as api from "./api.js";
import { h, replace, say } from "./dom.js";
import { count, score } from "./format.js";
import { whenVisible } from "./visible.js";

/** @typedef {{ name: string, steps: number, path: string, videos: Record<string, string>, scores: Record<string, number> }} Source */

/** A slider over checkpoints, and the videos of the chosen one. */
export class RunVideos {
  /** @param {string} path Of the run. @param {string} id @param {AbortSignal} signal */
  constructor(path, id, signal) {
    this.path = path;
    this.id = id;
    this.signal = signal;
    /** @type {Source[]} */
    this.sources = [];
    this.grid = h("div", { class: "videos" });
    this.slider = h("input", { type: "range", min: 0, max: 0, value: 0, "aria-label": "Checkpoint", on: { input: () => this.show() } });
    this.shown = h("output", { class: "muted" });
    this.find = h("input", { type: "search", placeholder: "Find a task…", "aria-label": "Find a video", on: { input: () => this.show() } });
    this.element = h("section", { class: "card", "aria-label": "Videos", hidden: true }, h("h2", {}, "Videos"), h("div", { class: "toolbar" }, this.find, this.slider, this.shown), this.grid);
  }

  /** Looks for new ones; what is being watched stays. @param {any} results */
  async refresh(results) {
    const sources = await this.read(results);
    if (JSON.stringify(sources) === JSON.stringify(this.sources)) return;
    const chosen = this.sources[Number(this.slider.value)];
    const again = chosen === this.sources.at(-1) ? -1 : sources.findIndex(({ name, steps }) => name === chosen.name && steps === chosen.steps);
    this.sources = sources;
    const newest = sources.length - 1;
    this.slider.max = newest;
    this.slider.value = again < 0 ? newest : again;
    this.slider.hidden = !newest;
    this.element.hidden = !sources.length;
    if (sources.length) this.show();
  }

  /** @param {any} results @returns {Promise<Source[]>} Oldest first. */
  async read(results) {
    const { path, id } = this;
    const found = await api.get("evaluations", { run_id: id }, this.signal).catch(() => ({ evaluations: [] }));
    /** @type {Source[]} */
    const sources = found.evaluations.filter((/** @type {any} */ job) => Object.keys(job.videos).length).map((/** @type {any} */ job) => ({
      name: `${job.request.checkpoint.replace(`${id}/`, "")}, ${job.request.mode ?? "as trained"}`,
      steps: job.result?.env_steps ?? 0,
      path: `evaluations/${encodeURIComponent(job.id)}/videos`,
      videos: job.videos,
      scores: scores(job.result?.tasks ?? {}),
    }));
    for (const one of results.evaluations.filter((/** @type {any} */ one) => Object.keys(one.videos).length)) {
      sources.push({ name: `${one.kind} evaluation`, steps: one.env_steps, path: `${path}/videos`, videos: one.videos, scores: scores(one.tasks) });
    }
    if (Object.keys(results.videos).length) {
      const final = Object.entries(results.tasks).map(([task, { final: stats }]) => [task, stats]);
      const steps = results.evaluations.findLast((/** @type {any} */ one) => one.kind === "final")?.env_steps ?? Number.MAX_VALUE;
      sources.push({ name: "final evaluation", steps, path: `${path}/videos`, videos: results.videos, scores: scores(Object.fromEntries(final)) });
    }
    return sources.sort((one, other) => one.steps - other.steps);
  }

  show() {
    const source = this.sources[Number(this.slider.value)];
    const name = source.steps < Number.MAX_VALUE ? `${source.name} · ${count(source.steps)} env steps` : source.name;
    say(this.shown, name);
    this.slider.setAttribute("aria-valuetext", name);
    const tasks = Object.keys(source.videos).filter((task) => task.includes(this.find.value.toLowerCase()));
    replace(this.grid, ...tasks.map((task) => video(`${source.path}/${encodeURIComponent(source.videos[task])}`, task, source.scores[task] ?? null, this.signal)));
  }
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
