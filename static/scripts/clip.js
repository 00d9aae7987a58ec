// @ts-check
/** What a run's clipping is, and what it does to the steps, in words and counts. Pure. */

import { formatCount, formatShare, formatValue } from "./format.js";
import { meanOf } from "./series.js";

/** @typedef {import("./series.js").Table} Table */
/** @typedef {import("./state.js").Event} Event */

const BENT = 1e-6; // float32 arithmetic alone puts a cosine of 1 up to so far below it

/** Strategy and arguments, whatever they are. @param {any} clip as the hook describes it */
export function describeClip(clip) {
  if (!clip || clip.strategy === "MeasureOnly") return "none (measured only)";
  const { strategy, threshold_of: _, ...rest } = clip;
  const words = Object.entries(rest)
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => `${name}=${inWords(value)}`);
  return `${strategy ?? "unknown"} ${words.join(", ")}`.trim();
}

/** @param {any} value of an argument @returns {string} */
function inWords(value) {
  if (Array.isArray(value)) return `[${value.map(inWords).join(", ")}]`;
  if (value === null || typeof value !== "object") return String(value);
  return `{${Object.entries(value)
    .map(([name, item]) => `${name}: ${inWords(item)}`)
    .join(", ")}}`;
}

/** Whether the threshold limits the total norm, so that both may stand on one axis. @param {any} clip */
export const limitsTotalNorm = (clip) => (clip?.threshold_of ?? "total norm") === "total norm";

/**
 * The threshold with what it limits, where that is not the total norm; empty where there is nothing to tell.
 * @param {any} clip @param {number | undefined} threshold
 */
export function describeLimit(clip, threshold) {
  if (limitsTotalNorm(clip) || clip.threshold_of === "nothing") return "";
  if (threshold === undefined || Number.isNaN(threshold)) return `per ${clip.threshold_of}`;
  const plain = formatValue(threshold, 3)
    .replace(/(\.\d*?)0+$/, "$1")
    .replace(/\.$/, "");
  return threshold === Infinity ? "none" : `${plain} per ${clip.threshold_of}`;
}

/** What measuring beside the norms costs, as a share of the steps' time. @param {Table} table */
export function describeSampling(table) {
  const [sampling, steps] = [meanOf(table, "sample_seconds"), meanOf(table, "step_seconds")];
  return sampling && steps ? `${formatShare(sampling / steps)} of step time` : "";
}

/** Whether clipping ever changed the gradient's direction. @param {Table} table */
export function bendsGradient(table) {
  const cosine = table.series.get("clip_cosine");
  return Boolean(cosine && cosine.min.some((low, at) => cosine.count[at] > 0 && low < 1 - BENT));
}

/** What the hook has to say of this training: the newest first, each sentence once. @param {Event[]} events */
export function hookNotes(events) {
  /** @type {Map<string, {event: Event, count: number}>} */ const notes = new Map();
  for (const event of events) {
    if (event.kind !== "hook") continue;
    const key = JSON.stringify([event.name, event.text]);
    const count = (notes.get(key)?.count ?? 0) + 1;
    notes.delete(key);
    notes.set(key, { event, count });
  }
  return [...notes.values()].reverse();
}

/** @type {Record<string, string>} */
const TITLES = {
  wiring: "Wiring of the clip",
  overflow: "Overflow",
  fallback: "Fallback to torch",
  dropped: "Dropped",
  probe: "Landscape",
  probe_tripwire: "Landscape",
};

/** An event's name as a person reads it. @param {Event} event */
export const eventTitle = (event) => (event.kind === "hook" && TITLES[event.name]) || event.name || event.kind;

/** An event in one line: its text, after the title where it is the hook's. @param {Event} event */
export const eventLine = (event) =>
  event.kind === "hook" && event.text ? `${eventTitle(event)}: ${event.text}` : event.text || eventTitle(event);

/** @param {{hook: number, scaler: number}} skips of one column @param {number} steps of that column */
export function skipReadings({ hook, scaler }, steps) {
  const of = (/** @type {number} */ count) =>
    steps > 1 ? `${formatCount(count)} of ${formatCount(steps)} steps ` : "";
  return [
    ...(hook ? [{ label: "■", value: `${of(hook)}left out by the hook`, tone: "event" }] : []),
    ...(scaler ? [{ label: "○", value: `${of(scaler)}left out for the loss scale`, tone: "event" }] : []),
  ];
}
