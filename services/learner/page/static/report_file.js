// A report as one HTML file that opens without a server: what a comparison shows, with words of one's own.
import { h } from "./dom.js";
import { markdown } from "./markdown.js";

/** What the file may do: show what is in it. */
const POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";
const STYLE = `
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.25; } img { max-width: 100%; height: auto; } a { color: inherit; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } figure { margin: 2rem 0; }
th, td { border-bottom: 1px solid #8886; padding: 0.25rem 1rem 0.25rem 0; text-align: left; vertical-align: top; }
pre { overflow-x: auto; } blockquote { border-left: 3px solid #8886; margin-left: 0; padding-left: 1rem; }
.legend { display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; font-size: 0.875rem; } .small { font-size: 0.875rem; }
.swatch { display: inline-block; width: 0.7rem; height: 0.7rem; border-radius: 2px; margin-right: 0.4rem; }
`;

/** @param {string} title @param {string} text Markdown. @param {(Node | null)[]} parts @returns {string} */
export function reportFile(title, text, parts) {
  const now = getComputedStyle(document.documentElement);
  const colours = Array.from({ length: 8 }, (_, place) => `--c${place}: ${now.getPropertyValue(`--c${place}`)};`).join(" ");
  const { color, backgroundColor } = getComputedStyle(document.body); // the pictures are made for these
  const style = `:root { ${colours} color: ${color}; background: ${backgroundColor}; }${STYLE}`;
  const head = h("head", {}, h("meta", { charset: "utf-8" }), h("meta", { "http-equiv": "Content-Security-Policy", content: POLICY }), h("title", {}, title), h("style", {}, style));
  const made = h("p", { class: "small" }, `Made by Newt on ${new Date().toISOString().slice(0, 16).replace("T", " ")} UTC.`);
  return `<!doctype html>\n${h("html", { lang: "en" }, head, h("body", {}, h("h1", {}, title), made, markdown(text), ...parts)).outerHTML}\n`;
}

/** A link that has a table in it. @param {string} name Of the file. @param {(string | number | null)[][]} rows */
export function table(name, rows) {
  const text = rows.map((row) => row.map((cell) => `"${String(cell ?? "").replaceAll('"', '""')}"`).join(",")).join("\n");
  return h("p", { class: "small" }, h("a", { download: name, href: `data:text/csv;charset=utf-8,${encodeURIComponent(`${text}\n`)}` }, `Numbers as ${name}`));
}

/** Hands a file to the browser's downloads. @param {string} name @param {string} content */
export function save(name, content) {
  const address = URL.createObjectURL(new Blob([content], { type: "text/html" }));
  const link = document.createElement("a");
  Object.assign(link, { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
