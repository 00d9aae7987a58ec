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

/** Batches, mode, type of numbers, normalisation and seed. @param {About} about */
export function aboutWords({ batches, mode, dtype, normalisation, seed }) {
  const norm = normalisation === "none" ? "not normalised" : normalisation && `${normalisation}-normalised`;
  return [
    typeof batches === "number" && `${formatCount(batches)} held-out ${batches === 1 ? "batch" : "batches"}`,
    mode && `${mode} mode`,
    dtype && String(dtype),
    norm,
    typeof seed === "number" && `seed ${seed}`,
  ];
}

/** What stood still or was left out, so that the training was not touched. @param {About} about */
const setting = ({ buffers, hooks_left_out: hooks }) => [
  buffers && `buffers ${buffers}`,
  Boolean(hooks) && `${formatCount(Number(hooks))} ${hooks === 1 ? "hook" : "hooks"} left out`,
];

/** What probing has cost the run. @param {Landscape["cost"] | undefined} cost */
export function costWords(cost) {
  if (!cost || cost.seconds === null) return "";
  const share = cost.share !== null && Number.isFinite(cost.share) ? `, ${formatShare(cost.share)} of the time` : "";
  return `probing so far ${formatDuration(cost.seconds)}${share}`;
}

/** @param {Landscape} data */
export function tapeCaption({ tape, line, cost }) {
  const { count, every } = tape;
  const shown =
    every > 1 ? `every ${formatCount(every)}th of ${formatCount(count)} probes` : `${formatCount(count)} probes`;
  const losses = tape.probes.flatMap(({ loss }) => loss);
  const missing = losses.filter((value) => value === null).length;
  const bad = losses.filter((value) => value !== null && !Number.isFinite(value)).length;
  return joined([
    "Loss along each probed update, less the loss before it",
    shown,
    ...aboutWords(line?.about ?? {}),
    ...setting(line?.about ?? {}),
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
    "2 / (critical α × learning rate)",
    line?.about.rule && `threshold: ${line.about.rule}`,
    `found in ${formatCount(measured)} of ${formatCount(tape.probes.length)} probes`,
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
 * @param {{capped: number, missing: number, wanted: number, finer: number}} counts
 */
export function surfaceCaption({ surface, cost }, now, { capped, missing, wanted, finer }) {
  if (!surface) return "";
  const { step, about, computed, nonfinite, seconds } = surface;
  const later = typeof now === "number" && now !== step ? `; the model is now at step ${formatCount(now)}` : "";
  const dots = finer ? ` and ${formatCount(finer)} finer, as dots` : "";
  return joined([
    `Surface at step ${formatCount(step)}${later}`,
    `plane: ${planeName(String(about.plane ?? "unknown"))}`,
    ...aboutWords(about),
    ...setting(about),
    `${formatCount(wanted - missing)} of ${formatCount(wanted)} points${dots}`,
    `${formatShare(computed ? capped / computed : 0)} capped`,
    `${formatShare(wanted ? missing / wanted : 0)} missing`,
    nonfinite && `${formatCount(nonfinite)} not finite`,
    seconds !== null && `this surface ${formatDuration(seconds)}`,
    costWords(cost),
    "a slice, not the landscape",
  ]);
}

/**
 * Share of the movement that a plane holds, beside what noise alone would give.
 * @param {import("./landscape.js").Trajectory} trajectory
 */
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
  const last = step[step.length - 1];
  return joined([
    `The weights' path in its own principal plane, steps ${formatCount(step[0])} to ${formatCount(last)}`,
    every > 1
      ? `every ${formatCount(every)}th of ${formatCount(snapshots)} snapshots`
      : `${formatCount(snapshots)} snapshots`,
    typeof k === "number" &&
      typeof parameters === "number" &&
      `sketch of ${formatCount(k)} numbers for ${formatCount(parameters)} parameters`,
    ...aboutWords(about),
    missing > 0 && `${formatShare(missing / step.length)} without a loss`,
    costWords(cost),
    "a projection, not the whole movement",
  ]);
}

/** A loss as it is read out: with words where it is no number. @param {Value | undefined} value */
export const lossWords = (value) =>
  value === null || value === undefined
    ? "not computed"
    : Number.isFinite(value)
      ? formatValue(value, 6)
      : `${formatValue(value)} (not finite)`;
