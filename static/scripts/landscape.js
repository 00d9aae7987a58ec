// @ts-check
/**
 * What the page knows of a run's loss landscape: the server's answer with its numbers read, which surface was chosen,
 * and what became of a surface asked for. Pure.
 */

import { parseNumber } from "./format.js";

/** @typedef {number | null} Value null: missing */
/**
 * @typedef {object} Probe along one update: loss at each alpha of the tape
 * @property {number} probe @property {number} step @property {Value[]} loss @property {Value} base
 * @property {Value} taken
 * @property {Value} best_alpha @property {Value} critical_low @property {Value} critical_high
 * @property {Value} sharpness
 * @property {Value} stability_threshold @property {Value} learning_rate @property {Value} update_norm
 * @property {boolean} done
 */
/** @typedef {Record<string, string | number | boolean>} About */
/** @typedef {{alpha: number[], every: number, count: number, probes: Probe[]}} Tape */
/** @typedef {{probe: number, step: number, alpha: number[], loss: Value[], about: About}} Line */
/** @typedef {"helped" | "hurt" | "inconclusive"} Outcome */
/** @typedef {{step: number, difference: Value, standard_error: Value, batches: number, outcome: Outcome}} ClipEvent */
/**
 * @typedef {object} Overall
 * @property {Outcome} outcome @property {number} count @property {number} helped @property {number} hurt
 * @property {number} inconclusive @property {Value} mean @property {Value} standard_error
 */
/** @typedef {{unsupported: string | null, events: ClipEvent[], overall: Overall | null}} Verdict */
/**
 * @typedef {object} SurfaceEntry
 * @property {number} probe @property {number} step @property {string} plane @property {number} levels
 * @property {number} computed @property {string} [request]
 */
/** @typedef {{step: number[], u: Value[], v: Value[], off: Value[], loss: Value[]}} Path */
/**
 * @typedef {object} Surface
 * @property {number} probe @property {number} step @property {About} about @property {number[]} u
 * @property {number[]} v
 * @property {Value[][]} loss loss[j][i] at v[j], u[i] @property {number} computed @property {number} nonfinite
 * @property {Value} unit_u @property {Value} unit_v @property {Value} base @property {Path} path
 * @property {Value} seconds
 */
/**
 * @typedef {object} Trajectory
 * @property {number[]} step @property {Value[]} x @property {Value[]} y @property {Value[]} off
 * @property {Value[]} loss
 * @property {[Value, Value]} explained @property {[Value, Value]} random_walk @property {number} snapshots
 * @property {number} every @property {About} about
 */
/**
 * @typedef {object} Landscape
 * @property {Tape} tape @property {Line | null} line @property {Verdict} verdict @property {SurfaceEntry[]} surfaces
 * @property {Surface | null} surface @property {Trajectory | null} trajectory
 * @property {{seconds: Value, share: Value}} cost
 */
/** @typedef {{phase: "sending" | "asked" | "refused", id: string, text: string}} Asked */
/**
 * @typedef {{data: Landscape | null, surface: number | null, asked: Asked | null}} LandscapeState surface null: newest
 */

/** @returns {LandscapeState} */
export const emptyLandscape = () => ({ data: null, surface: null, asked: null });

const WORDS = new Set(["NaN", "Infinity", "-Infinity"]);

/**
 * JSON with the words for non-finite numbers read as numbers; facts about a probe are text and stay.
 * @param {any} json @returns {any}
 */
export function readNumbers(json) {
  if (Array.isArray(json)) return json.map(readNumbers);
  if (typeof json === "string") return WORDS.has(json) ? parseNumber(json) : json;
  if (json === null || typeof json !== "object") return json;
  return Object.fromEntries(
    Object.entries(json).map(([name, value]) => [name, name === "about" ? value : readNumbers(value)]),
  );
}

/**
 * An answer, unless another surface was chosen since it was asked for.
 * @param {LandscapeState} state @param {{surface: number | null, answer: any}} message @returns {LandscapeState}
 */
export function receiveLandscape(state, { surface, answer }) {
  if (surface !== state.surface) return state;
  const data = /** @type {Landscape} */ (readNumbers(answer));
  const arrived = state.asked?.id && data.surfaces.some(({ request }) => request === state.asked?.id);
  const whole = arrived && !pendingSurface({ ...state, data });
  return { ...state, data, asked: whole ? null : state.asked };
}

/**
 * What became of asking for a surface; the one asked for is shown as soon as it comes.
 * @param {LandscapeState} state @param {Asked} asked @returns {LandscapeState}
 */
export const askedFor = (state, asked) => ({
  ...state,
  asked,
  surface: asked.phase === "asked" ? null : state.surface,
});

/** How many points a surface has when it is whole. @param {{levels: number}} entry */
export const pointsOf = ({ levels }) => levels * levels;

/** The surface that was asked for and is not whole yet. @param {LandscapeState} state @returns {SurfaceEntry | null} */
export function pendingSurface({ data, asked }) {
  const entry = asked?.id && data?.surfaces.find(({ request }) => request === asked.id);
  return entry && entry.computed < pointsOf(entry) ? entry : null;
}

/** Whether there is anything to show. @param {Landscape | null} data */
export const hasLandscape = (data) =>
  Boolean(
    data &&
    (data.tape.count ||
      data.verdict.events.length ||
      data.verdict.unsupported ||
      data.surfaces.length ||
      data.surface ||
      data.trajectory?.step.length),
  );

/**
 * Why no surface can be asked for, or nothing.
 * @param {{control?: boolean, commands?: string[], state: string} | null} run
 */
export function refusalOf(run) {
  if (!run) return "The run is not known yet.";
  if (run.state !== "running") return "The run has ended: no more points can be computed.";
  if (!run.control) return "This run takes no requests: watch it with control=True.";
  if (run.commands && !run.commands.includes("probe_landscape"))
    return "This run has no probe to compute with: watch it with probe=.";
  return "";
}

/** Whether what the server told means that there is more to fetch. @param {Record<string, any>} header of a notice */
export const tellsOfLandscape = (header) =>
  header.landscape === true || header.type === "landscape" || header.run?.landscape === true;
