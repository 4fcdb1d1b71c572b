// Tags and notes of a run, and the form to change them.
import * as api from "./api.js";
import { refusedToChange, unless } from "./caller.js";
import { h, replace } from "./dom.js";
import { markdown } from "./markdown.js";
import { attempt } from "./notices.js";

/** What people write about a run. */
export class RunNotes {
  /** @param {string} path Of the run. @param {any} run */
  constructor(path, run) {
    this.path = path;
    this.run = run;
    this.element = h("section", { "aria-label": "Notes" });
    this.draw();
  }

  draw() {
    const { tags, notes } = this.run;
    this.element.className = notes || tags.length ? "card notes" : "notes";
    const inside = this.element.contains(document.activeElement);
    const edit = h("button", { type: "button", on: { click: () => this.edit() } }, notes || tags.length ? "Edit" : "Write tags and notes");
    unless(edit, refusedToChange(`run ${this.run.id}`, this.run.owner));
    replace(
      this.element,
      h("div", { class: "line" }, h("div", { class: "chips" }, ...tags.map((/** @type {string} */ tag) => tagChip(tag)), notes || tags.length ? null : h("span", { class: "muted small" }, "No notes yet")), edit),
      notes ? markdown(notes) : null,
    );
    if (inside) edit.focus();
  }

  edit() {
    const tags = h("input", { type: "text", id: "tags", value: this.run.tags.join(", "), autocomplete: "off" });
    const notes = h("textarea", { id: "notes", rows: 8 });
    notes.value = this.run.notes;
    const error = h("p", { class: "error", role: "alert" });
    const form = h(
      "form",
      { class: "inputs" },
      h("label", { for: "tags" }, "Tags, with commas between them"),
      tags,
      h("label", { for: "notes" }, "Notes (Markdown)"),
      notes,
      error,
      h("div", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, "Save"), h("button", { type: "button", on: { click: () => this.draw() } }, "Discard")),
    );
    form.addEventListener("submit", async (/** @type {Event} */ event) => {
      event.preventDefault();
      const words = tags.value.split(",").map((/** @type {string} */ tag) => tag.trim()).filter(Boolean);
      await attempt(async () => {
        try {
          const { tags: kept, notes: text } = await api.patch(this.path, { tags: words, notes: notes.value });
          Object.assign(this.run, { tags: kept, notes: text });
          this.draw();
        } catch (problem) {
          if (!(problem instanceof api.ApiError) || !problem.fields.length) throw problem;
          replace(error, problem.fields.map((field) => `${field.field}: ${field.message}`).join("; "));
        }
      });
    });
    this.element.className = "card notes";
    replace(this.element, form);
    notes.focus();
  }
}

/** A tag, which leads to all runs that have it. @param {string} tag */
export const tagChip = (tag) => h("a", { class: "chip tag", href: `#/?q=${encodeURIComponent(tag)}` }, tag);
