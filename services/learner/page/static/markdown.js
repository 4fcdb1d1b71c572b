// Notes in Markdown as elements: headings, lists, quotes, code, emphasis, links. Nothing of it becomes HTML, and no
// picture is fetched from anywhere.
import { h } from "./dom.js";

const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*]+)\*|_([^_]+)_|\[([^\]]+)\]\((https?:\/\/[^\s)]+)\)|(https?:\/\/[^\s<>)]+)/;

/** @param {string} text @returns {HTMLElement} */
export function markdown(text) {
  const lines = text.replaceAll("\r", "").split("\n");
  const root = h("div", { class: "markdown" });
  let level = 1; // the run's own name
  while (lines.length) {
    const line = /** @type {string} */ (lines.shift());
    const heading = /^(#{1,4})\s+(.*)/.exec(line);
    if (line.startsWith("```")) {
      const end = lines.findIndex((other) => other.startsWith("```"));
      const code = lines.splice(0, end < 0 ? lines.length : end);
      lines.shift();
      root.append(h("pre", { class: "code", tabindex: "0" }, code.join("\n")));
    } else if (heading) {
      level = Math.min(heading[1].length, level) + 1; // none is left out on the way down
      root.append(h(`h${level}`, {}, ...inline(heading[2])));
    } else if (/^\s*([-*]|\d+\.)\s+/.test(line)) {
      const items = [line, ...taken(lines, /^\s*([-*]|\d+\.)\s+/)];
      const tag = /^\s*\d/.test(line) ? "ol" : "ul";
      root.append(h(tag, {}, ...items.map((item) => h("li", {}, ...inline(item.replace(/^\s*([-*]|\d+\.)\s+/, ""))))));
    } else if (line.startsWith(">")) {
      const quoted = [line, ...taken(lines, /^>/)].map((item) => item.replace(/^>\s?/, ""));
      root.append(h("blockquote", {}, ...inline(quoted.join(" "))));
    } else if (line.trim()) {
      const rest = taken(lines, /^(?!\s*$|#|```|>|\s*([-*]|\d+\.)\s)/);
      root.append(h("p", {}, ...inline([line, ...rest].join(" "))));
    }
  }
  return root;
}

/** Takes lines from the front for as long as they fit. @param {string[]} lines @param {RegExp} fits */
function taken(lines, fits) {
  const end = lines.findIndex((line) => !fits.test(line));
  return lines.splice(0, end < 0 ? lines.length : end);
}

/** @param {string} text @returns {(Node | string)[]} */
function inline(text) {
  const parts = [];
  for (let found = INLINE.exec(text); found; found = INLINE.exec(text)) {
    const [all, code, strong, star, under, label, target, bare] = found;
    parts.push(text.slice(0, found.index));
    if (code) parts.push(h("code", {}, code));
    else if (strong) parts.push(h("strong", {}, ...inline(strong)));
    else if (star || under) parts.push(h("em", {}, ...inline(star || under)));
    else parts.push(h("a", { href: target ?? bare, rel: "noopener noreferrer", target: "_blank" }, label ?? bare));
    text = text.slice(found.index + all.length);
  }
  return [...parts, text];
}
