// @ts-check
/** Light, dark or the system's theme, remembered; and the colours that drawings take from the style sheet. */

const KEY = "gradwatch.theme";
/** @typedef {"system" | "light" | "dark"} Theme */
/** @type {Theme[]} */
export const THEMES = ["system", "light", "dark"];

/** @returns {Theme} */
export function chosenTheme() {
  const value = recall(KEY);
  return value === "light" || value === "dark" ? value : "system";
}

/** @param {Theme} theme */
export function chooseTheme(theme) {
  remember(KEY, theme);
  applyTheme();
}

export function applyTheme() {
  const theme = chosenTheme();
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  document.dispatchEvent(new CustomEvent("themechange"));
}

/** Calls back when the colours change, by choice or with the system. @param {() => void} callback */
export function onThemeChange(callback) {
  document.addEventListener("themechange", callback);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", callback);
}

/** @typedef {ReturnType<typeof readColours>} Colours */

/** @type {Colours | null} */
let cached = null;
onThemeChange(() => (cached = null));

/** The drawing colours now in force. @returns {Colours} */
export const colours = () => (cached ??= readColours());

function readColours() {
  const style = getComputedStyle(document.documentElement);
  const token = (/** @type {string} */ name) => style.getPropertyValue(`--${name}`).trim();
  return {
    text: token("text"),
    muted: token("text-muted"),
    grid: token("grid"),
    surface: token("surface"),
    line: token("border-strong"),
    loss: token("series-loss"),
    norm: token("series-norm"),
    threshold: token("series-threshold"),
    clip: token("series-clip"),
    other: token("series-other"),
    nonfinite: token("nonfinite"),
    spike: token("spike"),
    restart: token("restart"),
    mark: token("mark"),
    skip: token("skip"),
    good: token("good"),
    bad: token("bad"),
    warn: token("warn"),
    change: ["fall-most", "fall", "even", "rise", "rise-most"].map(token),
    font: token("font"),
  };
}

/** @param {string} hex #rrggbb @param {number} alpha */
export function faded(hex, alpha) {
  const value = Number.parseInt(hex.slice(1), 16);
  return `rgba(${value >> 16}, ${(value >> 8) & 255}, ${value & 255}, ${alpha})`;
}

/**
 * A setting kept in this browser; a browser that refuses storage just forgets.
 * @param {string} key @returns {string | null}
 */
export function recall(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

/** @param {string} key @param {string} value */
export function remember(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // private windows and full stores: the choice then lasts as long as the page
  }
}
