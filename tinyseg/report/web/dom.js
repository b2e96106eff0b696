"use strict";
// Elements and numbers. Text from the data enters the page here only, as text nodes.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes (on...: listeners) and children; strings become text. */
function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function makeSvg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const byId = (id) => document.getElementById(id);
const range = (count) => Array.from({ length: count }, (_, index) => index);
const fixed = (value, digits) => (value === null ? "–" : value.toFixed(digits));
const percent = (value) => (value === null ? "–" : `${(100 * value).toFixed(1)} %`);

/** A table that scrolls sideways where it does not fit. */
function scrollable(label, table) {
  table.setAttribute("aria-label", label);
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, table);
}

/** A select with a label; change(value) is called with the chosen option's value. */
function select(label, options, change) {
  const items = options.map(([value, text]) => make("option", { value }, text));
  const input = make("select", { onchange: () => change(input.value) }, ...items);
  return make("label", { class: "field" }, `${label} `, input);
}

/** Python's pack() undone: a Uint8Array of rows * columns values. */
async function unpack(text, rows, columns) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const map = new Uint8Array(await new Response(stream).arrayBuffer());
  for (let at = columns; at < rows * columns; at++) map[at] += map[at - columns];
  return map;
}
