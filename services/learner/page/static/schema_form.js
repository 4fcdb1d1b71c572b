// Inputs made from the API's own description of a run: every setting with its help, bounds and default.
import { h, replace, say } from "./dom.js";

/**
 * A setting of the schema.
 * @typedef {{ path: string, title: string, help: string, bounds: string, types: string[],
 *   choices: any[] | null, minimum?: number, maximum?: number }} Setting
 */

/** The schema of the body of `POST /runs`. @param {any} description OpenAPI's. */
export function runSchema(description) {
  const body = description.paths["/runs"].post.requestBody.content["application/json"].schema;
  return resolved(description, body);
}

/** @param {any} description @param {any} schema @returns {any} */
export function resolved(description, schema) {
  let found = schema;
  while (found?.$ref || found?.allOf?.length === 1) {
    found = found.$ref
      ? { ...at(description, found.$ref), ...without(found, "$ref") }
      : { ...found.allOf[0], ...without(found, "allOf") };
  }
  return found;
}

/**
 * The settings of a section, those of sections within included.
 * @param {any} description @param {any} section @param {string} path @returns {Setting[]}
 */
export function settingsOf(description, section, path) {
  return Object.entries(section.properties ?? {}).flatMap(([name, raw]) => {
    const field = resolved(description, raw);
    const place = path ? `${path}.${name}` : name;
    if (field.properties) return settingsOf(description, field, place);
    const kinds = (field.anyOf ?? [field]).map((/** @type {any} */ kind) => resolved(description, kind));
    const main = kinds.find((/** @type {any} */ kind) => kind.type !== "null") ?? field;
    return [
      {
        path: place,
        title: name.replaceAll("_", " "),
        help: field.description ?? "",
        bounds: bounds(main),
        types: kinds.map((/** @type {any} */ kind) => kind.type ?? "object"),
        choices: main.enum ?? (main.const === undefined ? null : [main.const]),
        minimum: main.minimum ?? main.exclusiveMinimum,
        maximum: main.maximum ?? main.exclusiveMaximum,
      },
    ];
  });
}

/** One input with its label, help and place for an error. */
export class Field {
  /** @param {Setting} setting @param {() => void} changed */
  constructor(setting, changed) {
    this.setting = setting;
    const id = `field-${setting.path}`;
    const described = `${id}-help ${id}-error`;
    const common = { id, name: setting.path, "aria-describedby": described, on: { input: changed } };
    if (setting.choices || setting.types[0] === "boolean") {
      const choices = setting.choices ?? [true, false];
      this.unnamed = h("option", { value: "" });
      this.input = h("select", common, this.unnamed, ...choices.map((choice) => h("option", { value: JSON.stringify(choice) }, text(choice))));
    } else {
      const numeric = setting.types.includes("integer") || setting.types.includes("number");
      this.input = h("input", {
        ...common,
        type: "text",
        inputmode: numeric ? "decimal" : null,
        autocomplete: "off",
        spellcheck: "false",
      });
    }
    this.fallback = undefined;
    this.error = h("p", { class: "error", id: `${id}-error`, role: "alert" });
    this.element = h(
      "div",
      { class: "field" },
      h("label", { for: id }, setting.title),
      this.input,
      h("p", { class: "help", id: `${id}-help` }, [setting.help, setting.bounds].filter(Boolean).join(" ")),
      this.error,
    );
  }

  /** Says what the run has if nothing is entered. @param {any} value undefined: what the checkpoint has. */
  leave(value) {
    this.fallback = value;
    const known = value === null || value === "" ? "" : `: ${text(value)}`;
    const told = value === undefined ? "as the checkpoint" : value === "" ? "" : `as preset${known}`;
    if (this.unnamed) say(this.unnamed, told);
    else this.input.placeholder = told;
  }

  /** What was entered, undefined for nothing. Text that is no number stays text: the API says what is wrong with it. */
  get value() {
    const entered = this.input.value.trim();
    if (entered === "") return undefined;
    const { types, choices } = this.setting;
    if (choices || types[0] === "boolean") return JSON.parse(entered);
    if (types.every((type) => type === "string" || type === "null")) return entered === "null" ? null : entered;
    try {
      return JSON.parse(/^[-+\d_.e]+$/i.test(entered) ? entered.replaceAll("_", "") : entered);
    } catch {
      return entered;
    }
  }

  /** @param {any} value */
  set value(value) {
    const plain = typeof value === "string" && !this.setting.choices;
    this.input.value = value === undefined ? "" : plain ? value : JSON.stringify(value);
  }

  /** @param {string} message Empty for none. */
  complain(message) {
    say(this.error, message);
    if (message) this.input.setAttribute("aria-invalid", "true");
    else this.input.removeAttribute("aria-invalid");
  }
}

/** Puts a value into nested settings. @param {any} target @param {string} path @param {any} value */
export function put(target, path, value) {
  const names = path.split(".");
  const last = /** @type {string} */ (names.pop());
  let place = target;
  for (const name of names) place = place[name] ??= {};
  place[last] = value;
}

/** @param {any} source @param {string} path */
export const pick = (source, path) => path.split(".").reduce((place, name) => place?.[name], source);

/** A list of messages without a field of their own. @param {Element} place @param {string[]} messages */
export function complainAbove(place, messages) {
  replace(place, ...messages.map((message) => h("p", { class: "problem" }, message)));
}

/** As people read it. @param {any} value */
function text(value) {
  if (typeof value === "number") return value.toLocaleString("en-US", { maximumSignificantDigits: 6 });
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** @param {any} field */
function bounds(field) {
  const { minimum, exclusiveMinimum, maximum, exclusiveMaximum } = field;
  const low = minimum ?? exclusiveMinimum;
  const high = maximum ?? exclusiveMaximum;
  const parts = [];
  if (low !== undefined) parts.push(`${exclusiveMinimum === undefined ? "from" : "above"} ${text(low)}`);
  if (high < 1e15) parts.push(`${exclusiveMaximum === undefined ? "to" : "below"} ${text(high)}`);
  return parts.length ? `(${parts.join(" ")})` : "";
}

/** @param {any} description @param {string} reference */
const at = (description, reference) => reference.slice(2).split("/").reduce((place, name) => place[name], description);

/** @param {any} source @param {string} name */
function without(source, name) {
  const { [name]: _, ...rest } = source;
  return rest;
}
