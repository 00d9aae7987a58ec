// @ts-check
/** What a person can do: move through the steps, search, acknowledge, log in. Every view they reach is an address. */

import { ApiError, login, request } from "./connection.js";
import { formatRoute } from "./route.js";
import { visibleRange } from "./visible.js";

/** @typedef {import("./route.js").View} View */
/** @typedef {import("./route.js").RunRoute} RunRoute */

/**
 * Whole steps for a range that was dragged, scaled or moved: at least two, from `lowest` on. Pure.
 * @param {[number, number]} range @param {number} [lowest] @returns {[number, number]}
 */
export function wholeSteps([low, high], lowest = 0) {
  const first = Math.max(lowest, Math.ceil(Math.min(low, high)));
  return [first, Math.max(first + 1, Math.floor(Math.max(low, high)))];
}

export class Actions {
  /**
   * @param {() => import("./state.js").State} state @param {(message: import("./state.js").Message) => void} send
   * @param {import("./feed.js").Feed} feed @param {() => void} routed
   */
  constructor(state, send, feed, routed) {
    this.state = state;
    this.send = send;
    this.feed = feed;
    this.routed = routed;
  }

  /**
   * @param {Partial<RunRoute>} change
   * @param {{replace?: boolean}} [how] a small move replaces the address, so that "back" stays useful
   */
  go(change, { replace = false } = {}) {
    const { route } = this.state();
    if (route.name !== "run") return;
    const hash = formatRoute({ ...route, ...change });
    if (hash === location.hash) this.send({ type: "panning", range: null });
    else if (replace) history.replaceState(null, "", hash);
    else history.pushState(null, "", hash);
    this.routed();
  }

  /** @param {[number, number]} range */
  zoom(range) {
    // A pan beyond the first step stops there and keeps its width.
    const [first, last] = wholeSteps(range[0] < 0 ? [0, range[1] - range[0]] : range);
    this.go({ view: { mode: "range", first, last } });
  }

  reset() {
    this.go({ view: { mode: "all" }, step: null });
  }

  /** @param {number} span */
  span(span) {
    this.go({ view: { mode: "span", span }, step: null });
  }

  follow() {
    const { route } = this.state();
    const range = visibleRange(this.state());
    if (route.name !== "run" || !range) return;
    if (route.view.mode !== "range") this.zoom(range);
    else this.span(route.view.last - route.view.first + 1);
  }

  /** @param {number} share of the view's width */
  pan(share) {
    const range = visibleRange(this.state());
    if (!range) return;
    const by = Math.round((range[1] - range[0] + 1) * share);
    const first = Math.max(0, range[0] + by);
    this.go({ view: { mode: "range", first, last: first + range[1] - range[0] } }, { replace: true });
  }

  /** @param {number} factor below 1 zooms in */
  scale(factor) {
    const state = this.state();
    const range = visibleRange(state);
    if (!range) return;
    const inside = state.cursor !== null && state.cursor >= range[0] && state.cursor <= range[1];
    const about = inside ? /** @type {number} */ (state.cursor) : (range[0] + range[1]) / 2;
    const [first, last] = wholeSteps([about - (about - range[0]) * factor, about + (range[1] - about) * factor]);
    const end = state.run?.last_step ?? last;
    if (first <= (state.view.table.first[0] ?? 0) && last >= end) this.reset();
    else this.go({ view: { mode: "range", first, last: Math.min(last, Math.max(end, first + 1)) } }, { replace: true });
  }

  /** Shows a step with its surroundings and leaves the crosshair on it. @param {number} step */
  jump(step) {
    const first = Math.max(0, step - 100);
    this.go({ view: { mode: "range", first, last: first + 200 }, step });
  }

  /**
   * The crosshair follows the pointer; without one it goes back to the step of the address.
   * @param {number | null} step
   */
  point(step) {
    const { route } = this.state();
    this.send({ type: "cursor", step: step ?? (route.name === "run" ? route.step : null) });
  }

  /** @param {number} by columns */
  movePoint(by) {
    const { view, cursor } = this.state();
    const range = visibleRange(this.state());
    if (!range) return;
    const step = (cursor ?? range[1] + 1) + by * view.table.width;
    this.send({ type: "cursor", step: Math.min(range[1], Math.max(range[0], step)) });
  }

  release() {
    const { route } = this.state();
    if (route.name === "run" && route.step !== null) this.go({ step: null }, { replace: true });
    this.send({ type: "cursor", step: null });
  }

  /** The next or previous event or alert from the crosshair. @param {1 | -1} direction */
  nextEvent(direction) {
    const { events, alerts, cursor, run } = this.state();
    const steps = [...events.map(({ step }) => step), ...alerts.map(({ first_step: step }) => step)].sort(
      (a, b) => (a - b) * direction,
    );
    const from = cursor ?? (direction > 0 ? -1 : (run?.last_step ?? 0) + 1);
    const step = steps.find((candidate) => (candidate - from) * direction > 0);
    if (step !== undefined) this.jump(step);
  }

  /** @param {number} id */
  async acknowledge(id) {
    const answer = await this.feed.attempt(() => request(`api/alerts/${id}/ack`, { method: "POST" }));
    const known = this.state().alerts.find((alert) => alert.id === id);
    const alert = answer?.alert ?? (answer?.id === id ? answer : known && { ...known, state: "acknowledged" });
    if (answer !== null && alert) this.send({ type: "acknowledged", alert });
  }

  /**
   * Asks the training for something.
   * @param {string} run @param {{command: string, value?: number}} wanted @param {(why: string) => void} refused
   * @returns {Promise<any>} null: it was not asked
   */
  command(run, wanted, refused) {
    const options = {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(wanted),
    };
    return this.feed.attempt(() =>
      request(`api/runs/${encodeURIComponent(run)}/control`, options).catch((error) => {
        if (!(error instanceof ApiError) || error.status === 401) throw error;
        refused(error.message);
        return null;
      }),
    );
  }

  /** @param {string} token */
  async login(token) {
    const right = await login(token).catch(() => null);
    if (right) {
      if (location.pathname.endsWith("/login")) history.replaceState(null, "", `./${location.hash}`);
      this.send({ type: "login", need: false });
      this.feed.load();
      this.reconnect();
    } else
      this.send({
        type: "login",
        need: true,
        problem: right === null ? "The server cannot be reached. Try again." : "That token is wrong.",
      });
  }

  reconnect() {
    this.feed.renew();
  }

  reload() {
    this.send({ type: "problem", problem: null });
    this.feed.load();
  }

  /** @param {string} query */
  search(query) {
    history.replaceState(null, "", formatRoute({ name: "list", query }));
    this.routed();
    this.feed.searchSoon();
  }

  more() {
    this.send({ type: "more" });
    this.feed.loadRuns();
  }
}
