// @ts-check
/** Fetches a run's landscape: when the page opens, and when the server tells of more, at most once a second. */

import { ApiError, request } from "./connection.js";
import { tellsOfLandscape } from "./landscape.js";
import { visibleRange } from "./visible.js";

const EVERY = 1_000; // ms between two fetches, at least
const SHARE = 4; // ... and so many times what the last one took: a long landscape must not keep the server busy
const COLUMNS = 300; // probes on the tape

/**
 * The address of a run's landscape. Pure.
 * @param {import("./route.js").RunRoute} route @param {number | null} surface
 * @param {[number, number] | null} range steps of the tape; null: all
 */
export function landscapePath(route, surface, range) {
  const parameters = new URLSearchParams({ columns: String(COLUMNS) });
  if (range) {
    parameters.set("first", String(Math.max(0, Math.round(range[0]))));
    parameters.set("last", String(Math.round(range[1])));
  }
  if (surface !== null) parameters.set("surface", String(surface));
  if (route.attempt !== null) parameters.set("attempt", String(route.attempt));
  return `api/runs/${encodeURIComponent(route.run)}/landscape?${parameters}`;
}

export class LandscapeFeed {
  /**
   * @param {() => import("./state.js").State} state @param {(message: import("./state.js").Message) => void} send
   * @param {(what: () => Promise<any>) => Promise<any>} attempt
   */
  constructor(state, send, attempt) {
    this.state = state;
    this.send = send;
    this.attempt = attempt;
    this.askedAt = -EVERY;
    this.took = 0; // ms from the last request to its answer
    this.timer = 0;
    this.loading = false;
    this.shown = ""; // the id of the request whose surface was chosen last
    this.wanted = false; // asked for while it could not be fetched: another was under way, or nobody looks
    document.addEventListener("visibilitychange", () => this.wanted && this.loadSoon());
  }

  /** @param {Record<string, any>} header of a notice */
  hear(header) {
    const { route } = this.state();
    if (route.name !== "run" || !tellsOfLandscape(header)) return;
    const told = typeof header.run === "string" ? header.run : (header.run?.id ?? route.run);
    if (told === route.run) this.loadSoon();
  }

  loadSoon() {
    this.wanted = true;
    if (this.loading || this.timer || document.hidden) return;
    const wait = this.askedAt + Math.max(EVERY, SHARE * this.took) - performance.now();
    this.timer = setTimeout(
      () => {
        this.timer = 0;
        if (!document.hidden) this.load();
      },
      Math.max(0, wait),
    );
  }

  async load() {
    const state = this.state();
    const { route, run, landscape } = state;
    if (route.name !== "run" || run?.id !== route.run) return;
    Object.assign(this, { loading: true, wanted: false, askedAt: performance.now() });
    const range = route.view.mode === "all" ? null : visibleRange(state);
    const answer = await this.attempt(() => request(landscapePath(route, landscape.surface, range)));
    this.loading = false;
    this.took = performance.now() - this.askedAt;
    const { asked } = this.state().landscape; // as long as the answer has not shown that it is done
    if (answer) this.send({ type: "landscape", run: route.run, surface: landscape.surface, answer });
    if (answer && asked) this.showAsked(asked.id, answer.surfaces ?? []);
    if (this.wanted) this.loadSoon();
  }

  /**
   * Chooses the surface that was asked for, once it has begun.
   * @param {string} id of the request @param {import("./landscape.js").SurfaceEntry[]} surfaces
   */
  showAsked(id, surfaces) {
    const mine = surfaces.find(({ request }) => request === id);
    if (!id || !mine || id === this.shown) return;
    this.shown = id;
    this.choose(mine.probe);
  }

  /** @param {number | null} surface the probe; null: the newest */
  choose(surface) {
    this.send({ type: "landscape-surface", surface });
    this.loadSoon();
  }

  /** Asks the training for a surface. @param {{plane: string, levels: number, seed: number}} wanted */
  async ask(wanted) {
    const { route } = this.state();
    if (route.name !== "run") return;
    const tell = (/** @type {import("./landscape.js").Asked} */ asked) =>
      this.send({ type: "landscape-asked", run: route.run, asked });
    tell({ phase: "sending", id: "", text: "" });
    const answer = await this.attempt(() =>
      request(`api/runs/${encodeURIComponent(route.run)}/control`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ command: "probe_landscape", ...wanted }),
      }).catch((error) => {
        if (!(error instanceof ApiError) || error.status === 401) throw error;
        tell({ phase: "refused", id: "", text: error.message });
        return null;
      }),
    );
    if (answer) tell({ phase: "asked", id: String(answer.id), text: "" });
  }
}
