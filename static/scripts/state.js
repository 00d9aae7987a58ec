// @ts-check
/**
 * Everything the page knows, and how each message changes it: reduce(state, message) -> state. Pure: no clock, no
 * network, no document. Panels draw from the state and send messages; main.js lets effects follow.
 */

import { Kind } from "./frames.js";
import { askedFor, emptyLandscape, receiveLandscape } from "./landscape.js";
import { emptyTable, merge, nonfiniteAt, tableFromFrame, trim } from "./series.js";

/** @typedef {import("./series.js").Table} Table */
/** @typedef {import("./route.js").Route} Route */
/** @typedef {"running" | "finished" | "failed" | "lost"} RunState */
/** @typedef {{index: number, name: string, shape: number[], numel: number, order: number}} Layer */
/**
 * @typedef {object} Attempt
 * @property {number} number @property {number} start_step @property {number | null} last_step
 * @property {RunState} state @property {string | null} reason @property {number} started_at
 */
/**
 * @typedef {object} Run as the server tells it; the second half only for a single run
 * @property {string} id @property {string} project @property {string} name @property {string | null} group
 * @property {string[]} tags @property {RunState} state @property {string | null} reason @property {number} attempt
 * @property {number | null} last_step @property {number | null} total_steps @property {number | null} started_at
 * @property {number | null} updated_at @property {number | null} ended_at @property {number[]} ranks
 * @property {{open: number}} alerts @property {(number | null)[]} [sparkline]
 * @property {Layer[]} [layers] @property {Record<string, any>} [config] @property {Attempt[]} [attempts]
 * @property {any} [clip] @property {number | string} [norm_type] @property {Record<string, any>} [host]
 * @property {boolean} [control] whether it takes commands @property {string[]} [commands] which
 */
/**
 * @typedef {object} Alert
 * @property {number} id @property {string} run @property {number} attempt @property {string} rule
 * @property {"critical" | "warning"} severity @property {string} title @property {string} text @property {number} count
 * @property {number} first_step @property {number} last_step @property {string[]} layers
 * @property {"open" | "acknowledged"} state @property {number} created_at @property {number} updated_at
 */
/** @typedef {{run: string, step: number, time: number, kind: string, name: string, text: string}} Event */
/**
 * @typedef {{phase: "connecting" | "open" | "waiting", retryAt: number, heardAt: number | null, reason: string}} Link
 */
/** @typedef {{kind: "unknown" | "deleted" | "server", text: string}} Problem */
/** @typedef {{request: number, table: Table, parts: Map<number, Table>, loading: boolean}} Channel */
/** @typedef {{id: number, alert: Alert}} Toast */
/**
 * @typedef {object} State
 * @property {Route} route @property {number} now unix seconds, this browser's clock
 * @property {number} offset server clock minus ours @property {"unknown" | "fine" | "needed"} login
 * @property {string} loginProblem @property {Link} link @property {string} notice
 * @property {{loaded: boolean, runs: Run[], total: number, limit: number}} list
 * @property {Run | null} run @property {Problem | null} problem
 * @property {Channel} view what the charts show @property {Channel} tail the newest steps, for the status bar
 * @property {number | null} nonfiniteSteps over the whole run @property {Event[]} events @property {Alert[]} alerts
 * @property {Toast[]} toasts @property {number | null} cursor step under the crosshair
 * @property {[number, number] | null} panning the range while a drag is going on
 * @property {import("./landscape.js").LandscapeState} landscape
 */
/** @typedef {{type: string, [key: string]: any}} Message */

const TAIL = 256; // steps the status bar looks back on, at most
export const STALE_AFTER = 15; // seconds without a word from the server
const MAX_TOASTS = 3;
const MAX_EVENTS = 5_000;

/** @returns {Channel} */
const emptyChannel = () => ({ request: 0, table: emptyTable(), parts: new Map(), loading: false });

const emptyRun = () => ({
  run: null,
  problem: null,
  view: emptyChannel(),
  tail: emptyChannel(),
  nonfiniteSteps: null,
  events: [],
  alerts: [],
  toasts: [],
  cursor: null,
  panning: null,
  landscape: emptyLandscape(),
});

/** @param {Route} route @param {number} now @returns {State} */
export const initialState = (route, now) => ({
  route,
  now,
  offset: 0,
  login: "unknown",
  loginProblem: "",
  notice: "",
  link: { phase: "connecting", retryAt: 0, heardAt: null, reason: "" },
  list: { loaded: false, runs: [], total: 0, limit: 50 },
  ...emptyRun(),
});

/** @param {State} state @param {Message} message @returns {State} */
export function reduce(state, message) {
  const handler = Object.hasOwn(HANDLERS, message.type) ? HANDLERS[message.type] : undefined;
  return handler ? handler(state, message) : state;
}

/** @type {Record<string, (state: State, message: Message) => State>} */
const HANDLERS = {
  clock: (state, { now }) => ({ ...state, now }),
  route: (state, { route }) =>
    sameRun(state.route, route)
      ? {
          ...state,
          route,
          cursor: route.step ?? (state.cursor === stepOf(state.route) ? null : state.cursor),
          panning: null,
        }
      : { ...state, route, ...emptyRun(), cursor: route.step ?? null },
  link: (state, { phase, retryAt = 0, reason = "" }) => ({ ...state, link: { ...state.link, phase, retryAt, reason } }),
  heard: (state, { at }) => ({ ...state, link: { ...state.link, heardAt: at } }),
  login: (state, { need, problem = "" }) => ({ ...state, login: need ? "needed" : "fine", loginProblem: problem }),
  notice: (state, { text }) => ({ ...state, notice: text }),
  problem: (state, { problem }) => ({ ...state, problem }),
  runs: (state, { runs, total }) => ({ ...state, list: { ...state.list, loaded: true, runs, total } }),
  more: (state) => ({ ...state, list: { ...state.list, limit: state.list.limit + 50 } }),
  run: (state, { run }) => (shows(state, run.id) ? { ...state, run, problem: null, notice: "" } : state),
  events: (state, { run, events }) => (shows(state, run) ? { ...state, events: joined(events, state.events) } : state),
  alerts: (state, { run, alerts }) => (shows(state, run) ? { ...state, alerts: sortAlerts(alerts) } : state),
  nonfinite: (state, { run, steps }) => (shows(state, run) ? { ...state, nonfiniteSteps: steps } : state),
  acknowledged: (state, { alert }) => ({
    ...state,
    alerts: withAlert(state.alerts, alert),
    toasts: state.toasts.filter((toast) => toast.alert.id !== alert.id),
  }),
  dismiss: (state, { id }) => ({ ...state, toasts: state.toasts.filter((toast) => toast.id !== id) }),
  cursor: (state, { step }) => (state.cursor === step ? state : { ...state, cursor: step }),
  panning: (state, { range }) => ({ ...state, panning: range }),
  landscape: (state, { run, surface, answer }) =>
    shows(state, run) ? { ...state, landscape: receiveLandscape(state.landscape, { surface, answer }) } : state,
  "landscape-surface": (state, { surface }) => ({ ...state, landscape: { ...state.landscape, surface } }),
  "landscape-asked": (state, { run, asked }) =>
    shows(state, run) ? { ...state, landscape: askedFor(state.landscape, asked) } : state,
  subscribed: (state, { channel, request }) =>
    withChannel(state, channel, { request, parts: new Map(), loading: true }),
  frame: (state, { channel, frame, at }) => receive(state, channel, frame, at),
};

/** @param {Route} before @param {Route} after */
const sameRun = (before, after) =>
  before.name === after.name &&
  (before.name !== "run" || after.name !== "run" || (before.run === after.run && before.attempt === after.attempt));

/** @param {Route} route */
const stepOf = (route) => (route.name === "run" ? route.step : null);

/** @param {State} state @param {string} run */
const shows = (state, run) => state.route.name === "run" && state.route.run === run;

/** @param {State} state @param {"view" | "tail"} name @param {Partial<Channel>} change @returns {State} */
const withChannel = (state, name, change) => ({ ...state, [name]: { ...state[name], ...change } });

/**
 * @param {State} state @param {"view" | "tail"} name @param {import("./frames.js").Frame} frame @param {number} at
 * @returns {State}
 */
function receive(state, name, frame, at) {
  if (frame.kind === Kind.NOTICE) return hear(state, name, frame.header, at);
  if (frame.kind !== Kind.SNAPSHOT && frame.kind !== Kind.DELTA) return state;
  const { header } = frame;
  if (header.request !== state[name].request || !shows(state, header.run)) return state;
  const table = tableFromFrame(frame);
  const next = frame.kind === Kind.SNAPSHOT ? snapshot(state, name, header, table) : delta(state, name, table);
  return Number.isInteger(header.last_step) ? advance(next, header.last_step) : next;
}

/** @param {State} state @param {"view" | "tail"} name @param {any} header @param {Table} table @returns {State} */
function snapshot(state, name, header, table) {
  const total = header.parts ?? 1;
  if (total === 1) return withChannel(state, name, { table, parts: new Map(), loading: false });
  const parts = new Map(state[name].parts).set(header.part, table);
  if (parts.size < total) return withChannel(state, name, { parts });
  const ordered = [...parts].sort(([a], [b]) => a - b).map(([, part]) => part);
  return withChannel(state, name, { table: ordered.reduce(merge), parts: new Map(), loading: false });
}

/** @param {State} state @param {"view" | "tail"} name @param {Table} newer @returns {State} */
function delta(state, name, newer) {
  const table = merge(state[name].table, newer);
  const route = state.route;
  const span = name === "tail" ? TAIL : route.name === "run" && route.view.mode === "span" ? route.view.span + 200 : 0;
  const last = table.last.length ? table.last[table.last.length - 1] : 0;
  // Cut off in portions: columns that left the window long ago, not one with every delta.
  return withChannel(state, name, {
    table: span && table.first[0] < last - 1.25 * span ? trim(table, last - span + 1) : table,
  });
}

/** @param {State} state @param {number} step @returns {State} */
function advance(state, step) {
  const { run } = state;
  return run && (run.last_step === null || run.last_step < step)
    ? { ...state, run: { ...run, last_step: step } }
    : state;
}

/** @param {State} state @param {"view" | "tail"} name @param {any} notice @param {number} at @returns {State} */
function hear(state, name, notice, at) {
  if (notice.type === "heartbeat") return { ...state, offset: notice.time - at };
  if (name === "tail") return state; // both channels hear of the run; one of them is enough
  if (notice.type === "run") return hearRun(state, notice.run);
  if (notice.type === "alert") return hearAlert(state, notice.alert);
  if (notice.type === "deleted") return hearDeleted(state, notice.run);
  // Of a run that does not exist (yet) the page speaks already.
  if (notice.type === "error") return state.problem ? state : { ...state, notice: notice.message };
  if (notice.type === "event" && shows(state, notice.event.run)) {
    if (state.events.some((event) => isSame(event, notice.event))) return state;
    return { ...state, events: [...state.events, notice.event].slice(-MAX_EVENTS) };
  }
  return state;
}

/**
 * Events listed over HTTP, and those heard meanwhile that the list lacks.
 * @param {Event[]} listed @param {Event[]} heard @returns {Event[]}
 */
function joined(listed, heard) {
  const key = (/** @type {Event} */ { step, time, kind, name, text }) => JSON.stringify([step, time, kind, name, text]);
  const keys = new Set(listed.map(key));
  return [...listed, ...heard.filter((event) => !keys.has(key(event)))].slice(-MAX_EVENTS);
}

/** Whether two are the same: the socket may tell of one that was listed already. @param {Event} a @param {Event} b */
const isSame = (a, b) =>
  a.step === b.step && a.time === b.time && a.kind === b.kind && a.name === b.name && a.text === b.text;

/** @param {State} state @param {Run} run @returns {State} */
function hearRun(state, run) {
  const runs = state.list.runs.map((known) => (known.id === run.id ? { ...known, ...run } : known));
  const known = shows(state, run.id) && state.run ? { ...state.run, ...run } : state.run;
  return { ...state, run: known, list: { ...state.list, runs } };
}

/** @param {State} state @param {Alert} alert @returns {State} */
function hearAlert(state, alert) {
  if (!shows(state, alert.run)) return state;
  const known = state.alerts.find(({ id }) => id === alert.id);
  const news = alert.state === "open" && (!known || known.state !== "open");
  const toasts = state.toasts.map((toast) => (toast.alert.id === alert.id ? { ...toast, alert } : toast));
  return {
    ...state,
    alerts: withAlert(state.alerts, alert),
    toasts:
      news && !toasts.some(({ id }) => id === alert.id)
        ? [...toasts, { id: alert.id, alert }].slice(-MAX_TOASTS)
        : toasts,
  };
}

/** @param {State} state @param {string} id @returns {State} */
function hearDeleted(state, id) {
  const runs = state.list.runs.filter((run) => run.id !== id);
  const total = state.list.total - (state.list.runs.length - runs.length);
  const problem = shows(state, id) ? deletedProblem : state.problem;
  return { ...state, problem, list: { ...state.list, runs, total } };
}

/** @type {Problem} */
export const deletedProblem = {
  kind: "deleted",
  text: "This run was deleted. Steps that still arrive for it are refused.",
};

/** @param {Alert[]} alerts @param {Alert} alert */
const withAlert = (alerts, alert) => sortAlerts([...alerts.filter(({ id }) => id !== alert.id), alert]);

/** Open before acknowledged, critical before warning, newest first. @param {Alert[]} alerts */
function sortAlerts(alerts) {
  const rank = (/** @type {Alert} */ alert) =>
    (alert.state === "open" ? 0 : 2) + (alert.severity === "critical" ? 0 : 1);
  return [...alerts].sort((a, b) => rank(a) - rank(b) || b.last_step - a.last_step || b.id - a.id);
}

/** Seconds since the server was last heard, or null before the first word. @param {State} state */
export const silence = (state) => (state.link.heardAt === null ? null : Math.max(0, state.now - state.link.heardAt));

/** Open alerts that the title badge counts. @param {State} state */
export const openAlerts = (state) =>
  state.route.name === "run"
    ? state.alerts.filter(({ state: word }) => word === "open").length
    : state.list.runs.reduce((sum, run) => sum + (run.alerts?.open ?? 0), 0);

/** Steps with something non-finite: the run's count, or what the tail shows when that is more. @param {State} state */
export function nonfiniteSteps(state) {
  const { table } = state.tail;
  let tail = 0;
  for (let at = 0; at < table.first.length; at++) tail += nonfiniteAt(table, at) ? 1 : 0;
  return state.nonfiniteSteps === null ? (table.first.length ? tail : null) : Math.max(state.nonfiniteSteps, tail);
}

/** What a run is doing, in one word of ours: a running one without a step is waiting. @param {Run} run */
export const runWord = (run) => (run.state === "running" && run.last_step === null ? "waiting" : run.state);
