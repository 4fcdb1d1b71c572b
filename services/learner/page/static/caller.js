// Who one is, where tokens have names, and what one's role is refused: the page says it before the API has to.
import * as api from "./api.js";
import { disable } from "./dom.js";

/** Without names, whoever has the token may do everything. */
const ANYBODY = { name: null, role: "operator", quotas: {} };
/** @type {{ name: string | null, role: string, quotas: Record<string, number | null> }} */
let person = ANYBODY;
/** @type {Promise<typeof person> | null} */
let asked = null;

/** Asks, once; what comes after it can be sure of the functions below. */
export function caller() {
  asked ??= api.get("whoami").then((found) => (person = found), () => ((asked = null), ANYBODY));
  return asked;
}

/** Why one may not make anything; empty if one may. */
export const refusedToMake = () => (person.role === "reader" ? `${person.name} is a reader, who may look and change nothing; ask an operator for another role` : "");

/** Why one may not change something; empty if one may. @param {string} what @param {string | null} owner */
export function refusedToChange(what, owner) {
  if (person.role !== "user" || owner === person.name) return refusedToMake();
  const whose = owner ? `belongs to ${owner}` : "has no owner that is known";
  return `${what} ${whose}; you are ${person.name}, and only ${owner ? `${owner} and operators` : "operators"} may change it`;
}

/** A button that does nothing if there is a reason why not, which it tells. @template {HTMLElement} T @param {T} button @param {string} reason @returns {T} */
export function unless(button, reason) {
  if (!reason) return button;
  disable(button, true);
  button.title = reason;
  const stop = (/** @type {Event} */ event) => (event.preventDefault(), event.stopImmediatePropagation());
  button.addEventListener("click", stop, { capture: true }); // before what it would do
  return button;
}
