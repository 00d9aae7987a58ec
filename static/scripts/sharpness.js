// @ts-check
/** How far the step taken is from the critical one, in words. Pure. */

import { formatCount, formatValue } from "./format.js";
import { criticalOf } from "./tape.js";

/** @typedef {import("./landscape.js").Probe} Probe */
/** @typedef {"good" | "near" | "over" | "unknown"} Zone */
/** @typedef {{zone: Zone, ratio: number, figure: string, note: string}} Reading figure: step taken to critical step */

const NEAR = 0.5; // of the critical step: a step this long has little room left
/** The ends of the gauge, as shares of the critical step. */
export const GAUGE = Object.freeze([0.02, 5]);

/** Two digits, without an exponent where that can be. @param {number} ratio */
const figureOf = (ratio) => (ratio >= 9.95 ? formatCount(Math.round(ratio)) : formatValue(ratio, 2));

/** @param {number} ratio @returns {Zone} */
const zoneOf = (ratio) => (ratio >= 1 ? "over" : ratio >= NEAR ? "near" : "good");

/** @type {Record<Zone, string>} */
const NOTES = {
  good: "Well below it: this step had room to spare.",
  near: "Close to it: a step not much longer would have raised the loss.",
  over: "Longer than critical: this step raised the loss it was probed on.",
  unknown: "The critical step is not measured yet.",
};

/** The newest probe that is whole. @param {Probe[]} probes @returns {Probe | null} */
export function newestMeasured(probes) {
  let newest = null;
  for (const probe of probes)
    if (criticalOf(probe).bracket !== "unknown" && (!newest || probe.step >= newest.step)) newest = probe;
  return newest;
}

/** What one probe says of its step. @param {Probe | null} probe @returns {Reading} */
export function readSharpness(probe) {
  const { alpha, bracket } = probe ? criticalOf(probe) : { alpha: NaN, bracket: "unknown" };
  if (bracket === "unknown" || !(alpha > 0)) return { zone: "unknown", ratio: NaN, figure: "", note: NOTES.unknown };
  const ratio = 1 / alpha;
  if (bracket === "beyond")
    return {
      zone: zoneOf(ratio),
      ratio,
      figure: `< ${figureOf(ratio)} ×`,
      note: `The loss did not rise up to ${figureOf(alpha)} times the step taken.`,
    };
  if (bracket === "at once")
    return {
      zone: "over",
      ratio,
      figure: `> ${figureOf(ratio)} ×`,
      note: `The loss rises at once along this step: already at ${figureOf(alpha)} of it.`,
    };
  const zone = zoneOf(ratio);
  return { zone, ratio, figure: `${figureOf(ratio)} ×`, note: NOTES[zone] };
}

/** The place 0..1 of a ratio on the gauge's log scale. @param {number} ratio */
export function gaugePlace(ratio) {
  const [low, high] = GAUGE.map(Math.log);
  return Math.max(0, Math.min(1, (Math.log(ratio) - low) / (high - low)));
}

/** Sharpness beside its threshold, in words. @param {Probe | null} probe */
export function sharpnessWords(probe) {
  if (!probe || probe.sharpness === null || Number.isNaN(probe.sharpness)) return "";
  const { sharpness, stability_threshold: threshold } = probe;
  const known = threshold !== null && Number.isFinite(threshold);
  const limit = known ? `, stable below ${formatValue(threshold, 3)}` : "; no threshold is known for this optimizer";
  return `sharpness ${formatValue(sharpness, 3)}${limit}`;
}
