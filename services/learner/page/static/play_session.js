// A play that is under way: the picture, how things stand, who acts, and what the world model expected.
import * as api from "./api.js";
import { Chart } from "./chart.js";
import { disable, h, redraw, replace, say } from "./dom.js";
import { precise, score } from "./format.js";
import { attempt, notify } from "./notices.js";
import { HeldKeys } from "./play_keys.js";

const ACTORS = /** @type {Record<string, string>} */ ({ planner: "Planner", policy: "Policy", expert: "Expert", random: "Random", keys: "Keys" });
const SHOWN = 1000; // steps in the charts

/** A play; it ends with the signal. */
export class PlaySession {
  /** @param {any} play As POST /plays answers. @param {AbortSignal} signal */
  constructor(play, signal) {
    this.play = play;
    this.signal = signal;
    this.path = `plays/${encodeURIComponent(play.id)}`;
    /** @type {any} */
    this.now = null;
    this.episode = "";
    this.ended = false;
    this.clear();
    this.keys = play.keys ? new HeldKeys(play, (action) => this.act(action)) : null;
    this.image = h("img", { alt: `What ${play.task} looks like now`, hidden: true });
    this.message = h("p", { class: "muted", role: "status", tabindex: "-1" }, "Starting: the model is loaded, and the simulator is built…");
    this.screen = h("div", { class: "screen", tabindex: "0", role: "group", "aria-label": this.keys ? `Picture; keys ${Object.keys(play.keys).join(", ")} play` : "Picture" }, this.image);
    this.keys?.listen(this.screen);
    this.who = h("div", { class: "segments", role: "group", "aria-label": "Who acts" });
    this.pause = this.button("Pause", () => this.change({ paused: !this.now.paused }));
    this.step = this.button("Step", () => api.post(`${this.path}/step`));
    this.seed = h("input", { type: "text", inputmode: "numeric", "aria-label": "Seed of the episode", autocomplete: "off" });
    this.tiles = h("dl", { class: "card flush tiles" });
    this.rewards = new Chart({ title: "Reward", unit: "per step", group: "play" }, signal);
    this.values = new Chart({ title: "Value", unit: "critics' estimate", group: "play" }, signal);
    const rate = h("input", { type: "range", min: 1, max: 60, value: play.steps_per_s, "aria-label": "Steps per second" });
    rate.addEventListener("change", () => attempt(() => this.change({ steps_per_s: Number(rate.value) })));
    this.parts = h(
      "div",
      { class: "controls", hidden: true },
      this.who,
      this.keys?.element,
      h("div", { class: "buttons" }, this.pause, this.step, h("label", { class: "muted small pace" }, "Pace", rate)),
      h("div", { class: "buttons" }, this.seed, this.button("Reset", () => this.reset(0)), this.button("Next seed", () => this.reset(1))),
      h("div", { class: "buttons" }, this.button("Keep as demonstration", () => this.save()), this.button("End", () => this.end())),
    );
    const models = play.checkpoint !== null;
    this.element = h(
      "div",
      { class: "play" },
      h("section", { class: "card stage", "aria-label": play.task }, h("h2", {}, play.task), h("p", { class: "muted small" }, play.checkpoint ?? "no model"), this.screen, this.message, this.parts),
      h("div", { class: "facts" }, this.tiles, models ? this.instruction() : null, play.actors.includes("planner") ? this.imagining() : null, h("div", { class: "charts" }, this.rewards.element, models ? this.values.element : null)),
    );
    signal.addEventListener("abort", () => !this.ended && api.remove(this.path).catch(() => {}), { once: true });
  }

  /** Follows it to its end. */
  async follow() {
    await api.follow(`${this.path}/events`, (kind, data) => this.tell(kind, data), this.signal, () => {});
    if (!this.signal.aborted && !this.ended) this.over("It has ended: nobody watched it for a while.");
  }

  /** @param {string} kind @param {any} data */
  tell(kind, data) {
    if (kind === "step") this.show(data);
    else if (kind === "imagined") this.imagined = data;
    else if (kind === "problem") notify(data.message, "error");
    else if (kind === "ended") this.over(`It has ended: ${data.reason}.`);
    else if (kind === "taken") this.over("It is watched elsewhere now.");
  }

  /** @param {any} now */
  show(now) {
    if (now.episode !== this.episode) {
      this.episode = now.episode;
      this.clear();
    }
    if (!this.now) this.parts.hidden = false;
    if (this.now?.seed !== now.seed) this.seed.value = now.seed;
    if (this.now?.actor !== now.actor) this.drawActors(now.actor);
    this.now = now;
    if (now.picture) {
      this.image.src = `data:image/jpeg;base64,${now.picture}`;
      this.image.hidden = false;
    }
    this.note(now);
    say(this.pause, now.paused ? "Go on" : "Pause");
    disable(this.pause, now.over);
    disable(this.step, now.over);
    say(this.message, now.over ? "The episode is over." : now.imagining ? "It follows what it has imagined." : now.paused ? "Paused." : "");
    const facts = [
      ["Step", `${now.step} / ${this.play.episode_length}`],
      ["Reward", precise(now.reward)],
      ["Return", precise(now.return)],
      ["Score", score(now.score)],
      ["Success", now.success === null ? "–" : now.success >= 1 ? "yes" : "no"],
      ...(this.play.checkpoint === null ? [] : [["Value", precise(now.value)], ["Plan's spread", precise(now.spread)]]),
    ];
    replace(this.tiles, ...facts.map(([name, value]) => h("div", { class: "tile" }, h("dt", {}, name), h("dd", {}, value))));
  }

  clear() {
    /** @type {{ x: number[], reward: (number | null)[], value: (number | null)[] }} */
    this.past = { x: [], reward: [], value: [] };
    /** @type {any} */
    this.imagined = null;
  }

  /** Adds a step to the charts. @param {any} now */
  note({ step, reward, value, episode }) {
    const { past } = this;
    if (past.x.at(-1) !== step) {
      past.x.push(step);
      past.reward.push(reward);
      past.value.push(value);
      for (const column of Object.values(past)) if (column.length > SHOWN) column.shift();
    } else past.value[past.value.length - 1] = value; // it was told something else
    const expected = this.imagined?.episode === episode ? this.imagined : null;
    for (const [chart, name] of /** @type {[Chart, "reward" | "value"][]} */ ([[this.rewards, "reward"], [this.values, "value"]])) {
      const lines = [{ label: "real", colour: 0, x: past.x, y: past[name] }];
      if (expected) lines.push({ label: "imagined", colour: 1, x: expected[name].map((/** @type {any} */ _, /** @type {number} */ k) => expected.step + k + 1), y: expected[name], dots: true, dash: true });
      chart.show(lines, { axis: "step", log: false }, expected ? `imagined from step ${expected.step}` : "");
    }
  }

  /** @param {string} actor */
  drawActors(actor) {
    const actors = this.play.actors.filter((/** @type {string} */ name) => name !== "keys" || this.keys);
    redraw(this.who, ...actors.map((/** @type {string} */ name) => h("button", { type: "button", id: `actor-${name}`, "aria-pressed": String(name === actor), on: { click: () => attempt(() => this.turn(name)) } }, ACTORS[name])));
  }

  /** @param {string} actor */
  async turn(actor) {
    await this.change({ actor, paused: false });
    if (actor === "keys") this.screen.focus();
  }

  /** Acts by hand, and takes over. @param {number[]} action */
  act(action) {
    if (this.ended || !this.now) return Promise.resolve();
    return attempt(() => this.change(this.now.actor === "keys" ? { action } : { action, actor: "keys", paused: false }));
  }

  /** @param {any} changes */
  change(changes) {
    return api.patch(this.path, changes);
  }

  /** @param {string} instruction */
  async instruct(instruction) {
    await this.change({ instruction });
    notify("It has been told.");
  }

  /** @param {number} further */
  async reset(further) {
    const text = this.seed.value.trim();
    if (!/^\d{1,15}$/.test(text)) throw new Error("Seed: expected a whole number.");
    await api.post(`${this.path}/reset`, { seed: Number(text) + further });
    if (this.now.paused && further) await this.change({ paused: false });
  }

  async save() {
    if (!this.now.step) throw new Error("Nothing was played yet.");
    await api.download(`${this.path}/recording`, `${this.play.task}.npz`);
    notify(`Import it with: newt demos import ${this.play.task}.npz --set NAME`);
  }

  async end() {
    this.ended = true;
    await api.remove(this.path);
    this.over("It has ended.");
  }

  /** @param {string} why */
  over(why) {
    this.ended = true;
    say(this.message, why);
    if (this.parts.contains(document.activeElement)) this.message.focus();
    this.parts.hidden = true;
  }

  instruction() {
    const text = h("textarea", { id: "play-instruction", rows: 3, maxlength: 1000 }, this.play.instruction);
    const tell = this.button("Tell it", () => this.instruct(text.value));
    const own = this.button("The task's own", () => ((text.value = this.play.instruction), this.instruct("")));
    return h("section", { class: "card", "aria-label": "Instruction" }, h("h2", {}, h("label", { for: "play-instruction" }, "Instruction")), text, h("div", { class: "buttons", style: { "margin-top": "0.5rem" } }, tell, own));
  }

  imagining() {
    const shown = h("output", {}, "12");
    const steps = h("input", { type: "range", min: 3, max: 48, value: 12, "aria-label": "Steps to imagine" });
    steps.addEventListener("input", () => say(shown, steps.value));
    const unroll = (/** @type {string} */ actor) => () => api.post(`${this.path}/imagine`, { steps: Number(steps.value), actor });
    return h(
      "section",
      { class: "card", "aria-label": "Imagine" },
      h("h2", {}, "Imagine"),
      h("p", { class: "muted small" }, "Unrolls the world model from here without looking, then does the same in the simulator."),
      h("div", { class: "toolbar" }, h("label", {}, "Steps", steps, shown), this.button("One plan", unroll("planner")), this.button("Policy", unroll("policy"))),
    );
  }

  /** @param {string} text @param {() => any} action @returns {any} */
  button(text, action) {
    const button = h("button", { type: "button" }, text);
    button.addEventListener("click", () => button.getAttribute("aria-disabled") || attempt(async () => action()));
    return button;
  }
}
