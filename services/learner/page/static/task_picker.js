// Chooses tasks: sets, whole domains, or one by one.
import { h, redraw, replace, say } from "./dom.js";

/** The choice, and the elements to make it with. */
export class TaskPicker {
  /** @param {{ tasks: any[], sets: Record<string, string> }} known @param {() => void} changed */
  constructor(known, changed) {
    this.known = known;
    this.changed = changed;
    /** @type {Set<string>} */
    this.chosen = new Set();
    /** @type {Map<string, any[]>} */
    this.domains = new Map();
    for (const task of known.tasks) this.domains.set(task.domain, [...(this.domains.get(task.domain) ?? []), task]);
    this.summary = h("p", { class: "muted small", role: "status" });
    this.error = h("p", { class: "error", role: "alert", id: "field-tasks-error" });
    this.sets = h("div", { class: "chips pick", role: "group", "aria-label": "Task sets" });
    this.whole = h("div", { class: "chips pick", role: "group", "aria-label": "Domains" });
    this.search = h("input", { type: "search", placeholder: "Find a task by name or instruction…", "aria-label": "Find a task", on: { input: () => this.list() } });
    this.found = h("div", { class: "tasks", tabindex: "0", role: "group", "aria-label": "Tasks" });
    this.element = h(
      "fieldset",
      { class: "card" },
      h("legend", {}, "Tasks"),
      this.summary,
      h("h2", { class: "sub" }, "Sets"),
      this.sets,
      h("h2", { class: "sub" }, "Domains"),
      this.whole,
      h("h2", { class: "sub" }, "One by one"),
      this.search,
      this.found,
      this.error,
    );
    this.draw();
  }

  /** As a request names them. */
  get value() {
    return [...this.chosen];
  }

  set value(names) {
    this.chosen = new Set(names);
    this.draw();
  }

  /** @param {string} message */
  complain(message) {
    say(this.error, message);
  }

  /** @param {string} name */
  toggle(name) {
    if (!this.chosen.delete(name)) this.chosen.add(name);
    this.draw();
    this.changed();
  }

  draw() {
    const chip = (/** @type {string} */ name, /** @type {string} */ more, /** @type {string} */ title, bad = false) =>
      h(
        "button",
        {
          type: "button",
          id: `pick-${name}`,
          class: bad ? "chip off" : "chip",
          title,
          "aria-pressed": this.chosen.has(name) ? "true" : "false",
          on: { click: () => this.toggle(name) },
        },
        name,
        more ? h("span", { class: "muted" }, ` ${more}`) : null,
      );
    redraw(this.sets, ...Object.entries(this.known.sets).map(([name, what]) => chip(name, "", what)));
    redraw(
      this.whole,
      ...[...this.domains].map(([domain, tasks]) => {
        const there = tasks[0].simulator === "reachable";
        return chip(domain, String(tasks.length), there ? "Its simulator is there" : `Simulator: ${tasks[0].simulator}`, !there);
      }),
    );
    const known = new Set(this.known.tasks.map((task) => task.name));
    const others = this.value.filter((name) => !known.has(name) && !this.domains.has(name) && !(name in this.known.sets));
    const out = (/** @type {string} */ name) => h("button", { type: "button", class: "chip chosen", "aria-label": `Leave out ${name}`, on: { click: () => this.toggle(name) } }, `${name} ×`);
    redraw(
      this.summary,
      this.value.length ? "Chosen: " : "Nothing is chosen yet.",
      ...this.value.slice(0, 40).map(out),
      this.value.length > 40 ? ` and ${this.value.length - 40} more` : null,
      others.length ? h("span", { class: "muted" }, " (patterns are matched by the learner)") : null,
    );
    this.list();
  }

  list() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = this.known.tasks.filter((task) => {
      const text = `${task.name} ${task.domain} ${task.instruction}`.toLowerCase();
      return words.every((/** @type {string} */ word) => text.includes(word));
    });
    redraw(
      this.found,
      ...fits.slice(0, 300).map((task) => {
        const id = `task-${task.name}`;
        const whole = this.chosen.has(task.domain);
        const box = h("input", { type: "checkbox", id, disabled: whole, on: { change: () => this.toggle(task.name) } });
        box.checked = whole || this.chosen.has(task.name);
        return h("label", { class: "task", for: id }, box, h("span", {}, task.name), h("span", { class: "muted small" }, task.instruction));
      }),
    );
    if (!fits.length) replace(this.found, h("p", { class: "muted" }, "No task is like that."));
  }
}
