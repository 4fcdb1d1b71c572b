// What can be done with a run: cancel, resume, delete, start another like it.
import * as api from "./api.js";
import { refusedToChange, unless } from "./caller.js";
import { h, pressed } from "./dom.js";
import { attempt, confirmed, notify } from "./notices.js";

const FINISHED = new Set(["succeeded", "failed", "cancelled", "deleting"]);

/** @param {string} state */
export const finished = (state) => FINISHED.has(state);

/**
 * Buttons for what a run's state allows.
 * @param {{ id: string, state: string, owner: string | null }} run
 * @param {(gone: boolean) => void} changed
 * @returns {HTMLElement[]}
 */
export function runActions({ id, state, owner }, changed) {
  const refused = refusedToChange(`run ${id}`, owner);
  const path = `runs/${encodeURIComponent(id)}`;
  /** @type {HTMLElement[]} */
  const buttons = [];
  /** @param {string} label @param {string} kind @param {() => Promise<void>} action */
  const add = (label, kind, action) => {
    const button = h("button", { class: kind, type: "button", "aria-label": `${label} run ${id}` }, label);
    button.addEventListener("click", () => pressed(button, () => attempt(action)));
    buttons.push(unless(button, refused));
  };
  if (!finished(state)) {
    add("Cancel", "", async () => {
      const text = `${id} writes a last checkpoint and stops. It can be resumed.`;
      if (!(await confirmed("Cancel this run?", text, "Cancel the run"))) return;
      await api.post(`${path}/cancel`);
      notify(`${id} is being cancelled.`);
      changed(false);
    });
  }
  if (state === "failed" || state === "cancelled") {
    add("Resume", "", async () => {
      await api.post(`${path}/resume`);
      notify(`${id} is queued again.`);
      changed(false);
    });
  }
  if (finished(state)) {
    add("Delete", "danger", async () => {
      const text = `${id}: its checkpoints, videos, episodes and records are removed. This cannot be undone.`;
      if (!(await confirmed("Delete this run?", text, "Delete the run"))) return;
      await api.remove(path);
      notify(`${id} is deleted.`);
      changed(true);
    });
  }
  return buttons;
}

/** A state with its colour, and a word for those who see none. @param {string} state */
export const badge = (state) => h("span", { class: `badge ${state}` }, state);
