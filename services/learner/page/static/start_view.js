// Starts a run: a form made from the API's schema, the JSON that it sends, and the same as a curl line.
import * as api from "./api.js";
import { refusedToMake, unless } from "./caller.js";
import { h, pressed, replace, say } from "./dom.js";
import { notify } from "./notices.js";
import { complainAbove, Field, pick, put, resolved, runSchema, settingsOf } from "./schema_form.js";
import { TaskPicker } from "./task_picker.js";
import * as token from "./token.js";

const PRESETS = {
  laptop: "Minutes on two CPU cores: a small model, schedules scaled to the run's total.",
  default: "The published training run: size L, 100 M env steps; needs GPUs.",
  better: "The published training run with scaled observations and more cloning in pretraining, which helped at a small scale.",
};
/** Shown first, as they are what people set, with their labels. @type {Record<string, string>} */
const ESSENTIAL = {
  name: "name",
  seed: "seed",
  "schedule.total_env_steps": "total env steps",
  "algorithm.name": "algorithm",
  "model.size": "model size",
  obs: "observations",
  init_from: "fine-tune a checkpoint",
};
/** What a run is given by its own inputs. */
const APART = new Set(["tasks", "preset", "labels"]);
/** What other settings are worked out from: a run like another names it. */
const TOTAL = "schedule.total_env_steps";

/** @type {import("./main.js").View} */
export async function view(root, path, query, signal) {
  document.title = "Start a run · Newt";
  const from = query.get("from");
  const [description, known, model] = await Promise.all([
    api.get("openapi.json", {}, signal),
    api.get("tasks", {}, signal),
    from ? api.get(`runs/${encodeURIComponent(from)}`, {}, signal) : null,
  ]);
  const schema = runSchema(description);
  let preset = model ? model.spec.preset : "laptop";
  const picker = new TaskPicker(known, refresh);
  picker.value = model ? model.spec.tasks : query.getAll("task");
  const settings = settingsOf(description, schema, "").filter((setting) => !APART.has(setting.path));
  /** @type {Map<string, Field>} */
  const fields = new Map(settings.map((setting) => [setting.path, new Field({ ...setting, title: ESSENTIAL[setting.path] ?? setting.title }, refresh)]));
  const init = model ? model.spec.init_from : query.get("init");
  let asked = "";
  if (init) field("init_from").value = init;
  if (model) {
    field("algorithm.name").value = model.spec.algorithm.name;
    field(TOTAL).value = pick(model.spec, TOTAL);
    await leaveRest();
    for (const [name, one] of fields) if (![TOTAL, "name"].includes(name)) one.value = changed(pick(model.spec, name), one.fallback);
  }

  const labels = h("input", { type: "text", id: "field-labels", placeholder: "experiment=first, variant=a", autocomplete: "off", "aria-describedby": "field-labels-help field-labels-error", on: { input: refresh } });
  labels.value = Object.entries(model?.spec.labels ?? {}).map(([name, value]) => `${name}=${value}`).join(", ");
  const labelsError = h("p", { class: "error", id: "field-labels-error", role: "alert" });
  const presets = h("div", { class: "options" });
  const problems = h("div", { class: "problems" });
  const json = h("pre", { class: "code", tabindex: "0", "aria-label": "Request as JSON" });
  const curl = h("pre", { class: "code", tabindex: "0", "aria-label": "The same with curl" });
  const submit = unless(h("button", { class: "primary", type: "submit" }, "Start the run"), refusedToMake());

  const sections = Object.entries(schema.properties)
    .map(([name, raw]) => ({ name, help: resolved(description, raw).description ?? "", fields: [...fields.values()].filter(({ setting }) => setting.path.startsWith(`${name}.`) && !(setting.path in ESSENTIAL)) }))
    .filter((section) => section.fields.length);
  const details = new Map(
    sections.map(({ name, help, fields: inside }) => [
      name,
      h(
        "details",
        { class: "card section" },
        h("summary", {}, h("span", { class: "title" }, name), h("span", { class: "muted small" }, help), h("span", { class: "set" })),
        h("div", { class: "fields" }, ...inside.map((field) => field.element)),
      ),
    ]),
  );
  const form = h(
    "form",
    { class: "start", novalidate: true, on: { submit: (/** @type {Event} */ event) => (event.preventDefault(), pressed(submit, send)) } },
    h(
      "div",
      { class: "inputs" },
      problems,
      h("fieldset", { class: "card" }, h("legend", {}, "Preset"), presets),
      picker.element,
      h(
        "fieldset",
        { class: "card" },
        h("legend", {}, "Essentials"),
        h(
          "div",
          { class: "fields" },
          ...Object.keys(ESSENTIAL).map((name) => fields.get(name)?.element),
          h("div", { class: "field" }, h("label", { for: "field-labels" }, "labels"), labels, h("p", { class: "help", id: "field-labels-help" }, "What the run belongs to, as NAME=VALUE, with commas between."), labelsError),
        ),
      ),
      h("h2", {}, "All other settings"),
      h("p", { class: "muted" }, "What is left empty is the preset's."),
      ...details.values(),
    ),
    h(
      "aside",
      { class: "request", "aria-label": "Request" },
      h("div", { class: "card" }, titled("POST /runs", () => json.textContent), json, titled("The same with curl", () => curl.textContent), curl, h("div", { class: "buttons" }, submit)),
    ),
  );
  replace(root, h("div", { class: "heading" }, h("h1", {}, model ? "Start a run like another" : "Start a run")), model ? h("p", { class: "muted" }, "With the settings of ", h("a", { href: `#/run/${encodeURIComponent(model.id)}` }, model.id), "; change what should be different.") : null, form);
  replace(
    presets,
    ...Object.entries(PRESETS).map(([name, what]) => {
      const radio = h("input", { type: "radio", name: "preset", value: name, on: { change: () => ((preset = name), refresh()) } });
      radio.checked = name === preset;
      return h("label", { class: "option" }, radio, h("span", {}, h("strong", {}, name), h("span", { class: "muted small" }, what)));
    }),
  );
  refresh();

  /** @param {string} name */
  function field(name) {
    return /** @type {Field} */ (fields.get(name));
  }

  /** Says at all settings what they are if they are left empty. */
  async function leaveRest() {
    const algorithm = field("algorithm.name").value;
    const total = field(TOTAL).value;
    const from = field("init_from").value;
    const named = { ...(algorithm ? { algorithm } : {}), ...(Number.isSafeInteger(total) && total > 0 ? { total_env_steps: total } : {}), ...(from ? { init_from: from } : {}) };
    const now = JSON.stringify([preset, named]);
    if (now === asked) return;
    asked = now;
    try {
      const found = await api.get(`presets/${preset}`, named, signal);
      if (now !== asked) return; // it was changed meanwhile
      for (const [name, one] of fields) one.leave(pick(found, name));
    } catch (error) {
      if (now === asked) asked = ""; // it is tried again with the next change
      throw error;
    }
  }

  function request() {
    /** @type {any} */
    const body = { preset, tasks: picker.value };
    const pairs = labels.value.split(",").map((/** @type {string} */ pair) => pair.trim()).filter(Boolean);
    if (pairs.length) body.labels = Object.fromEntries(pairs.map((/** @type {string} */ pair) => pair.split("=").map((word) => word.trim())).map((/** @type {string[]} */ [name, ...value]) => [name, value.join("=")]));
    for (const [name, field] of fields) if (field.value !== undefined) put(body, name, field.value);
    return body;
  }

  function refresh() {
    leaveRest().catch(() => {});
    const body = request();
    say(json, JSON.stringify(body, null, 2));
    const secret = token.needed() ? '  -H "Authorization: Bearer $NEWT_API_TOKEN" \\\n' : "";
    const quoted = JSON.stringify(body).replaceAll("'", "'\\''");
    say(curl, `curl -X POST ${new URL("runs", document.baseURI)} \\\n  -H 'content-type: application/json' \\\n${secret}  -d '${quoted}'`);
    for (const { name, fields: inside } of sections) {
      const set = inside.filter((field) => field.value !== undefined).length;
      say(/** @type {Element} */ (details.get(name)?.querySelector(".set")), set ? `${set} set` : "");
    }
  }

  async function send() {
    complain([]);
    try {
      const run = await api.post("runs", request());
      notify(`${run.id} is queued.`);
      location.hash = `#/run/${encodeURIComponent(run.id)}`;
    } catch (error) {
      if (!(error instanceof api.ApiError)) throw error;
      complain(error.fields.length ? error.fields : [{ field: "", message: error.message }]);
    }
  }

  /** Puts each error where it belongs, and the eye on the first. @param {import("./api.js").FieldError[]} errors */
  function complain(errors) {
    for (const field of fields.values()) field.complain("");
    picker.complain("");
    say(labelsError, "");
    const rest = [];
    for (const { field: name, message } of errors) {
      const field = fields.get(name);
      const section = details.get(name.split(".")[0]);
      if (field) {
        field.complain(message);
        if (section) section.open = section.contains(field.element) || section.open;
      } else if (name === "tasks" || name.startsWith("tasks.")) picker.complain(message);
      else if (name.startsWith("labels")) say(labelsError, message);
      else rest.push(name && name !== "body" ? `${name}: ${message}` : message);
    }
    complainAbove(problems, rest);
    root.querySelector(".error:not(:empty), .problem")?.scrollIntoView({ block: "center" });
    /** @type {HTMLElement | null} */ (root.querySelector("[aria-invalid]"))?.focus({ preventScroll: true });
  }
}

/** A setting of another run, where it has to be said. @param {any} value @param {any} unnamed What it is otherwise; undefined: the checkpoint's. */
const changed = (value, unnamed) => (unnamed === undefined || JSON.stringify(value) === JSON.stringify(unnamed) ? undefined : value);

/** A title with a button that copies what is below. @param {string} title @param {() => string} text */
function titled(title, text) {
  const copy = async () => {
    await navigator.clipboard.writeText(text());
    notify("Copied.");
  };
  const there = Boolean(navigator.clipboard); // not on a plain http address of another machine
  return h("div", { class: "line" }, h("h2", {}, title), there ? h("button", { type: "button", class: "plain", on: { click: copy } }, "Copy") : null);
}
