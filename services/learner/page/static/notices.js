// Short messages, and questions before something is lost.
import { focusMain, h } from "./dom.js";

/** @param {string} text @param {"info" | "error"} [kind] */
export function notify(text, kind = "info") {
  const gone = () => {
    const inside = notice.contains(document.activeElement);
    notice.remove();
    if (inside) focusMain();
  };
  const close = h("button", { class: "plain", "aria-label": "Dismiss", on: { click: gone } }, "×");
  const notice = h("div", { class: `notice ${kind}` }, h("span", {}, text), close);
  document.getElementById("notices")?.append(notice);
  setTimeout(gone, kind === "error" ? 12_000 : 5_000);
}

/** Does something; what goes wrong is told. @param {() => Promise<any>} action @returns {Promise<boolean>} */
export async function attempt(action) {
  try {
    await action();
    return true;
  } catch (error) {
    notify(error instanceof Error ? error.message : String(error), "error");
    return false;
  }
}

/** @param {string} title @param {string} text @param {string} label Of the button that confirms. @returns {Promise<boolean>} */
export function confirmed(title, text, label) {
  return new Promise((resolve) => {
    const dialog = h(
      "dialog",
      { "aria-labelledby": "question" },
      h(
        "form",
        { method: "dialog" },
        h("h2", { id: "question" }, title),
        h("p", { class: "muted" }, text),
        h(
          "div",
          { class: "buttons" },
          h("button", { value: "", autofocus: true }, "Keep it"),
          h("button", { value: "yes", class: "danger" }, label),
        ),
      ),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (document.activeElement === document.body) focusMain(); // what had asked is gone
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
