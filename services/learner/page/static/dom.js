// Builds elements. Text of others only ever becomes text: nothing here, or anywhere on the page, parses HTML.

/** @typedef {Node | string | number | null | undefined | false} Child */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. Attributes: `class`, `on` with listeners, `style` with properties, else attributes, where true stands
 * for an empty one and false or null for none.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...Child} children
 * @returns {any}
 */
export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/**
 * The same for drawings.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...Child} children
 * @returns {any}
 */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

/** @param {Element} element @param {...Child} children */
export function replace(element, ...children) {
  element.replaceChildren(...nodes(children));
}

const FOCUSABLE = ":is(a[href], button, input, select, textarea, summary, [tabindex='0']):not(:disabled)";

/**
 * The same; whoever was on an element inside stays there, or on the one that stands for it now, by its id or name, or
 * nearby if it is gone.
 * @param {HTMLElement} element @param {...Child} children
 */
export function redraw(element, ...children) {
  const before = element.contains(document.activeElement) ? /** @type {HTMLElement} */ (document.activeElement) : null;
  replace(element, ...children);
  if (!before || before === element) return;
  const inside = /** @type {HTMLElement[]} */ ([...element.querySelectorAll(FOCUSABLE)]);
  const again = before.isConnected ? before : (inside.find((other) => called(other) === called(before)) ?? inside[0]);
  again?.focus({ preventScroll: true });
  if (!again || document.activeElement !== again) focusMain();
}

/** Where those go on whose element is gone. */
export function focusMain() {
  document.getElementById("main")?.focus({ preventScroll: true });
}

/** @param {Element} element */
const called = (element) => element.id || `${element.tagName} ${element.getAttribute("aria-label") ?? element.textContent}`;

/** A button that is disabled so, unlike by `disabled`, keeps the focus and can be asked why. @param {Element} button @param {boolean} off */
export function disable(button, off) {
  if (off) button.setAttribute("aria-disabled", "true");
  else button.removeAttribute("aria-disabled");
}

/** Does something unless the button is disabled, as which it stands meanwhile. @param {Element} button @param {() => Promise<any>} action */
export async function pressed(button, action) {
  if (button.getAttribute("aria-disabled")) return;
  disable(button, true);
  try {
    await action();
  } finally {
    disable(button, false);
  }
}

/** Sets the text of an element, if it is another one. @param {Element} element @param {string} text */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** @param {any} element @param {Record<string, any>} attributes @param {Child[]} children */
function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (name === "style") {
      for (const [property, text] of Object.entries(value)) element.style.setProperty(property, text);
    } else {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...nodes(children));
  return element;
}

/** @param {Child[]} children @returns {(Node | string)[]} */
function nodes(children) {
  return children
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : String(child)));
}
