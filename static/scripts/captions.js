// @ts-check
/** The line under each picture: what was computed, on what, in which mode, at which step, and at what cost. Pure. */

import { formatCount, formatDuration, formatShare, formatValue } from "./format.js";

/** @typedef {import("./landscape.js").About} About */
/** @typedef {import("./landscape.js").Landscape} Landscape */
/** @typedef {import("./landscape.js").Value} Value */

/** @param {(string | false | null | undefined | 0)[]} parts */
const joined = (parts) => parts.filter(Boolean).join(" · ");

/** @type {Record<string, string>} */
const PLANES = { update: "update × gradient", trajectory: "trajectory", random: "random" };
/** A plane as a person reads it. @param {string} plane */
export const planeName = (plane) => PLANES[plane] ?? plane;

/** Batches, mode, numbers, and what was held still. @param {About} about */
export function aboutWords(about) {
  const { batches, mode, dtype, normalisation, seed, buffers, hooks_left_out: hooks, optimizer } = about;
  const norm = normalisation === "none" ? "not normalised" : normalisation && `${normalisation}-normalised`;
  return [
    typeof batches === "number" && `${formatCount(batches)} held-out ${batches === 1 ? "batch" : "batches"}`,
    mode && `${mode} mode`,
    dtype && String(dtype),
    norm,
    typeof seed === "number" && `seed ${seed}`,
    optimizer && String(optimizer),
    buffers && `buffers ${buffers}`,
    Boolean(hooks) && `${formatCount(Number(hooks))} ${hooks === 1 ? "hook" : "hooks"} left out`,
  ];
}

/** What probing has cost the run. @param {Landscape["cost"] | undefined} cost */
export function costWords(cost) {
  if (!cost || cost.seconds === null) return "";
  const share = cost.share !== null && Number.isFinite(cost.share) ? `, ${formatShare(cost.share)} of the time` : "";
  return `probing so far ${formatDuration(cost.seconds)}${share}`;
}

/** @param {Landscape} data */
export function tapeCaption({ tape, line, cost }) {
  const { count, every } = tape;
  const shown = every > 1 ? `every ${formatCount(every)}th of ${formatCount(count)} probes` : `${formatCount(count)} probes`;
  const losses = tape.probes.flatMap(({ loss }) => loss);
  const missing = losses.filter((value) => value === null).length;
  const bad = losses.filter((value) => value !== null && !Number.isFinite(value)).length;
  return joined([
    "Loss along each probed update, less the loss before it",
    shown,
    ...aboutWords(line?.about ?? {}),
    `${formatShare(losses.length ? missing / losses.length : 0)} not computed`,
    bad && `${formatCount(bad)} not finite`,
    costWords(cost),
  ]);
}

/** @param {Landscape} data */
export const lineCaption = ({ line, cost }) =>
  joined(["One direction only", ...aboutWords(line?.about ?? {}), costWords(cost)]);

/** @param {Landscape} data @param {number} measured how many probes found the critical step */
export const gaugeCaption = ({ line, cost, tape }, measured) =>
  joined([
    "Sharpness = 2 / (critical alpha × learning rate)",
    line?.about.rule && `threshold: ${line.about.rule}`,
    `critical step found in ${formatCount(measured)} of ${formatCount(tape.probes.length)} probes shown`,
    ...aboutWords(line?.about ?? {}).slice(0, 3),
    costWords(cost),
  ]);

/** @param {Landscape} data */
export const verdictCaption = ({ line, cost, verdict }) =>
  joined([
    "Held-out loss after the raw step less that after the clipped one",
    "one step ahead only",
    verdict.events.length > 0 && `last ${formatCount(verdict.events.length)} probed clips`,
    ...aboutWords(line?.about ?? {}).slice(1, 3),
    costWords(cost),
  ]);

/**
 * @param {Landscape} data @param {number | null | undefined} now the step the training is at
 * @param {{capped: number, missing: number, wanted: number}} counts
 */
export function surfaceCaption({ surface, cost }, now, { capped, missing, wanted }) {
  if (!surface) return "";
  const { step, about, computed, nonfinite, seconds } = surface;
  return joined([
    `Surface at step ${formatCount(step)}${typeof now === "number" && now !== step ? `; the model is now at step ${formatCount(now)}` : ""}`,
    `plane: ${planeName(String(about.plane ?? "unknown"))}`,
    ...aboutWords(about),
    `${formatCount(computed)} of ${formatCount(wanted)} points`,
    `${formatShare(computed ? capped / computed : 0)} capped`,
    `${formatShare(wanted ? missing / wanted : 0)} missing`,
    nonfinite && `${formatCount(nonfinite)} not finite`,
    seconds !== null && `this surface ${formatDuration(seconds)}`,
    costWords(cost),
    "a slice, not the landscape",
  ]);
}

/** Share of the movement that a plane holds, beside what noise alone would give. @param {import("./landscape.js").Trajectory} trajectory */
export function explainedWords({ explained, random_walk: noise }) {
  const sum = (/** @type {[Value, Value]} */ shares) => (shares[0] ?? NaN) + (shares[1] ?? NaN);
  const percent = (/** @type {number} */ share) => (Number.isFinite(share) ? `${(100 * share).toFixed(0)} %` : "–");
  return `${percent(sum(explained))} explained; pure noise would explain ${percent(sum(noise))}`;
}

/** @param {Landscape} data @param {number} missing points without a loss */
export function mapCaption({ trajectory, cost }, missing) {
  if (!trajectory) return "";
  const { step, snapshots, every, about } = trajectory;
  const { k, parameters } = about;
  return joined([
    `The weights' path in its own principal plane, steps ${formatCount(step[0])} to ${formatCount(step[step.length - 1])}`,
    every > 1 ? `every ${formatCount(every)}th of ${formatCount(snapshots)} snapshots` : `${formatCount(snapshots)} snapshots`,
    typeof k === "number" && typeof parameters === "number" && `sketch of ${formatCount(k)} numbers for ${formatCount(parameters)} parameters`,
    ...aboutWords(about),
    missing > 0 && `${formatShare(missing / step.length)} without a loss`,
    costWords(cost),
    "a projection, not the whole movement",
  ]);
}

/** A loss as it is read out: with words where it is no number. @param {Value | undefined} value */
export const lossWords = (value) =>
  value === null || value === undefined ? "not computed" : Number.isFinite(value) ? formatValue(value, 6) : `${formatValue(value)} (not finite)`;
