// The API's token: asked for once, kept for this tab, sent in a header and never part of an address.
import { h } from "./dom.js";

const KEY = "newt-token";
/** @type {Promise<void> | null} */
let asking = null;

/** @returns {Record<string, string>} */
export function authorization() {
  const token = sessionStorage.getItem(KEY);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** Whether requests carry one, so that a plain link would not do. */
export const needed = () => sessionStorage.getItem(KEY) !== null;

/** Lets go of it, so that somebody else may enter theirs. */
export function forget() {
  sessionStorage.removeItem(KEY);
  location.reload();
}

/** Asks for the token; those who ask meanwhile wait for the same answer. @param {string} why @returns {Promise<void>} */
export function ask(why) {
  asking ??= new Promise((resolve) => {
    const input = h("input", { type: "password", id: "token", autocomplete: "off", required: true, spellcheck: "false" });
    const form = h(
      "form",
      { method: "dialog" },
      h("h2", { id: "token-title" }, "This learner wants a token"),
      h("p", { class: "muted" }, why),
      h("label", { for: "token" }, "Token"),
      input,
      h("div", { class: "buttons" }, h("button", { class: "primary", type: "submit" }, "Continue")),
      h("p", { class: "muted small" }, "It is kept until this tab is closed."),
    );
    const dialog = h("dialog", { "aria-labelledby": "token-title" }, form);
    dialog.addEventListener("cancel", (/** @type {Event} */ event) => event.preventDefault());
    form.addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, input.value.trim());
      dialog.close();
      dialog.remove();
      asking = null;
      resolve();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
  return asking;
}
