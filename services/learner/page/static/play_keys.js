// Keys that are held, on a keyboard or on the screen, and the action that they make together.
import { h } from "./dom.js";

const NAMES = /** @type {Record<string, string>} */ ({ ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down", " ": "space" });
const SIGNS = /** @type {Record<string, string>} */ ({ left: "←", right: "→", up: "↑", down: "↓" });

export class HeldKeys {
  /** @param {{ keys: Record<string, number[]>, idle: number[] }} play @param {(action: number[]) => Promise<any>} act */
  constructor({ keys, idle }, act) {
    this.keys = keys;
    this.idle = idle;
    this.act = act;
    /** @type {Set<string>} */
    this.held = new Set();
    this.sending = false;
    this.sent = JSON.stringify(this.action); // who only passes by takes nothing over
    const buttons = Object.keys(keys).map((name) => {
      const hold = (/** @type {PointerEvent} */ event) => (event.preventDefault(), this.press(name));
      const release = () => this.release(name);
      const pointer = { pointerdown: hold, pointerup: release, pointerleave: release, pointercancel: release };
      const keydown = (/** @type {KeyboardEvent} */ event) => ["Enter", " "].includes(event.key) && (event.preventDefault(), this.press(name));
      return h("button", { type: "button", "aria-label": `Hold ${name}`, on: { ...pointer, keydown, keyup: release, blur: release } }, SIGNS[name] ?? name);
    });
    this.element = h("div", { class: "buttons keys", role: "group", "aria-label": "Keys" }, ...buttons);
  }

  /** Listens to an element that has the keyboard. @param {HTMLElement} element */
  listen(element) {
    const name = (/** @type {KeyboardEvent} */ event) => NAMES[event.key] ?? event.key.toLowerCase();
    element.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey || !Object.hasOwn(this.keys, name(event))) return;
      event.preventDefault(); // the page does not scroll
      this.press(name(event));
    });
    element.addEventListener("keyup", (event) => this.release(name(event)));
    element.addEventListener("blur", () => {
      this.held.clear();
      this.send();
    });
  }

  /** @param {string} name */
  press(name) {
    this.held.add(name);
    this.send();
  }

  /** @param {string} name */
  release(name) {
    if (this.held.delete(name)) this.send();
  }

  get action() {
    const sum = this.idle.map((start, column) => [...this.held].reduce((total, name) => total + this.keys[name][column], start));
    return sum.map((value) => Math.min(1, Math.max(-1, value)));
  }

  /** Sends the action, if it is another one; the last one always arrives, and none overtakes another. */
  async send() {
    if (this.sending) return;
    this.sending = true;
    for (let text = JSON.stringify(this.action); text !== this.sent; text = JSON.stringify(this.action)) {
      this.sent = text;
      await this.act(JSON.parse(text));
    }
    this.sending = false;
  }
}
