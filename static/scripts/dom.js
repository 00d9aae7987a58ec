// @ts-check
/** Building the document: elements with text, never markup from a string. */

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag @param {Record<string, any>} [attributes] `on…` are listeners @param {...(Child | Child[])} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** @param {string} tag @param {Record<string, any>} [attributes] @param {...(Child | Child[])} children */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

/**
 * @template {Element} E @param {E} element @param {Record<string, any>} attributes
 * @param {(Child | Child[])[]} children
 */
function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2).toLowerCase(), value);
    else element.setAttribute(name === "className" ? "class" : name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false)
      element.append(typeof child === "number" ? String(child) : child);
  }
  return element;
}

/**
 * Sets text only where it changed, so that nothing is laid out again for nothing.
 * @param {Element} element @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** @param {Element} element @param {string} name @param {string | null} value */
export function setAttribute(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/**
 * Shapes in a 16 x 16 box; each word has its own, so that colour never speaks alone.
 * @type {Record<string, string>}
 */
const SHAPES = {
  running: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 0 0 0-11Zm-1.6 3l4.2 2.5l-4.2 2.5Z",
  waiting:
    "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2Zm0 1.8a4.2 4.2 0 1 1 0 8.4a4.2 4.2 0 0 1 0-8.4Z" +
    "M7.2 5v3.4l2.5 1.7l.8-1.2l-1.9-1.3V5Z",
  finished: "M6.4 12.6L2.2 8.4l1.5-1.5l2.7 2.7l5.9-5.9l1.5 1.5Z",
  failed: "M3.6 2.2L8 6.6l4.4-4.4l1.4 1.4L9.4 8l4.4 4.4l-1.4 1.4L8 9.4l-4.4 4.4l-1.4-1.4L6.6 8L2.2 3.6Z",
  lost: "M8 1.6L15 14.2H1Zm-.9 4.2v4.4h1.8V5.8Zm0 5.4v1.7h1.8v-1.7Z",
  critical: "M5.2 1.5h5.6l3.7 3.7v5.6l-3.7 3.7H5.2l-3.7-3.7V5.2Zm2 2.7v5.2h1.6V4.2Zm0 6.2v1.6h1.6v-1.6Z",
  warning: "M8 1.6L15 14.2H1Zm-.9 4.2v4.4h1.8V5.8Zm0 5.4v1.7h1.8v-1.7Z",
  acknowledged: "M6.4 12.6L2.2 8.4l1.5-1.5l2.7 2.7l5.9-5.9l1.5 1.5Z",
};

/** @param {string} name */
export function icon(name) {
  const path = svg("path", { d: SHAPES[name] ?? SHAPES.waiting, fill: "currentColor", "fill-rule": "evenodd" });
  return svg("svg", { viewBox: "0 0 16 16", class: `icon icon-${name}`, "aria-hidden": "true" }, path);
}
