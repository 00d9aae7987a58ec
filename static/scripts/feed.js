// @ts-check
/** What the page asks the server for: the lists and facts over HTTP, the steps over two live sockets. */

import { ApiError, LiveConnection, request } from "./connection.js";
import { LandscapeFeed } from "./landscape_feed.js";
import { deletedProblem } from "./state.js";

/** @typedef {import("./state.js").State} State */
/** @typedef {import("./state.js").Message} Message */
const EVERY = 10_000; // ms between refreshes of what the socket does not carry
const TAIL = 256; // newest steps, for the status bar
const BEFORE = 200; // steps left of the view, so that the clip ratio of its first step is whole
const MAX_COLUMNS = 2_000;
const MAX_CELLS = 1_000_000; // layers x columns: 20 bytes each on the wire

/**
 * The subscription for what a run's route shows. Pure.
 * @param {import("./route.js").RunRoute} route @param {number} pixels across the plot @param {number} layers of the run
 */
export function viewSubscription(route, pixels, layers) {
  const { view } = route;
  const cap = Math.min(MAX_COLUMNS, Math.max(128, Math.floor(MAX_CELLS / Math.max(1, layers))));
  const shown = view.mode === "range" ? view.last - view.first + 1 : view.mode === "span" ? view.span : 0;
  const asked = view.mode === "range" ? view.last - Math.max(0, view.first - BEFORE) + 1 : shown + BEFORE;
  const columns = Math.round(Math.min(cap, shown ? (pixels * asked) / shown : pixels));
  return {
    run: route.run,
    attempt: route.attempt,
    rank: null,
    columns: Math.max(16, columns),
    layers: true,
    follow: view.mode !== "range",
    first: view.mode === "range" ? Math.max(0, view.first - BEFORE) : null,
    last: view.mode === "range" ? view.last : null,
    span: view.mode === "span" ? asked : null,
  };
}

/**
 * How many steps were not finite, in loss or norm; without those of a GradScaler at work. Pure.
 * @param {Record<string, {nonfinite: number[], mean: (number | null)[], count: number[]}>} series reduced
 */
export function nonfiniteIn({ loss, total_norm, overflowed }) {
  const sum = (/** @type {number[]} */ counts = []) => counts.reduce((whole, more) => whole + more, 0);
  const scaler = Math.round(sum(overflowed?.count.map((count, at) => count * (overflowed.mean[at] ?? 0))));
  return Math.max(0, sum(loss?.nonfinite), sum(total_norm?.nonfinite) - scaler);
}

export class Feed {
  /** @param {() => State} state @param {(message: Message) => void} send @param {() => number} pixels */
  constructor(state, send, pixels) {
    this.state = state;
    this.send = send;
    this.pixels = pixels;
    this.requests = 0;
    this.searchTimer = 0;
    this.askedAt = 0;
    this.view = this.channel("view");
    this.tail = this.channel("tail");
    this.landscape = new LandscapeFeed(state, send, (what) => this.attempt(what, { quiet: true }));
    setInterval(() => this.refresh(), EVERY);
  }

  /** @param {"view" | "tail"} channel */
  channel(channel) {
    const now = () => Date.now() / 1000;
    return new LiveConnection({
      frame: (frame) => {
        if (channel === "view") this.send({ type: "heard", at: now() });
        this.send({ type: "frame", channel, frame, at: now() });
        if (channel === "view") this.follow(frame.header);
        if (channel === "view") this.landscape.hear(frame.header);
      },
      phase: (change) => {
        if (channel !== "view") return;
        this.send({ type: "link", ...change });
        if (change.phase === "open") this.send({ type: "heard", at: now() });
        if (change.phase === "open") this.load();
        if (change.phase === "waiting") this.probe();
      },
    });
  }

  /**
   * What a notice makes us ask for: a run we have not seen, layers we have no names for.
   * @param {Record<string, any>} header
   */
  follow(header) {
    const { route, run, list } = this.state();
    const unknown = header.type === "run" && route.name === "list" && !list.runs.some(({ id }) => id === header.run.id);
    const arrived = header.type === "run" && route.name === "run" && route.run === header.run.id && !run;
    const restarted =
      header.type === "run" && run?.id === header.run.id && header.run.attempt !== run?.attempts?.length;
    const unnamed = header.layers > 0 && header.layers !== run?.layers?.length;
    const ended = header.type === "run" && header.run.state !== "running" && run?.id === header.run.id;
    const spoilt = header.type === "event" && header.event.kind === "nonfinite" && run?.id === header.event.run;
    // The count of a run that has ended is not refreshed again.
    if (run && run.last_step !== null && (ended || spoilt)) this.loadNonfinite(run.id);
    if ((unknown || arrived || restarted || unnamed) && Date.now() - this.askedAt > 1_000) {
      this.askedAt = Date.now();
      this.load();
    }
  }

  /** A socket does not say why it was refused: HTTP does. */
  probe() {
    this.attempt(() => request("api/runs?limit=1"), { quiet: true });
  }

  /** Opens the sockets; a wait for the next try is cut short. */
  open() {
    this.view.open();
    if (this.state().route.name === "run") this.tail.open();
  }

  /** Opens them anew, whatever state they are in. */
  renew() {
    this.view.renew();
    if (this.state().route.name === "run") this.tail.renew();
  }

  /** Asks for what the route shows. */
  subscribe() {
    const { route, run } = this.state();
    if (route.name === "list") {
      this.view.subscribe({ type: "subscribe", request: ++this.requests, run: null });
      return;
    }
    this.ask("view", viewSubscription(route, this.pixels(), run?.layers?.length ?? 0));
    if (run) this.landscape.loadSoon();
  }

  /** The status bar follows the newest steps, whatever the charts show. */
  subscribeTail() {
    const { route } = this.state();
    if (route.name !== "run") return;
    this.ask("tail", {
      run: route.run,
      attempt: route.attempt,
      rank: null,
      columns: 2 * TAIL,
      layers: false,
      follow: true,
      first: null,
      last: null,
      span: TAIL,
    });
    this.tail.open();
  }

  /** @param {"view" | "tail"} channel @param {object} wanted */
  ask(channel, wanted) {
    const number = ++this.requests;
    this.send({ type: "subscribed", channel, request: number });
    this[channel].subscribe({ type: "subscribe", request: number, ...wanted });
  }

  /** Loads what the page at hand shows, over HTTP. */
  load() {
    const { route } = this.state();
    if (route.name === "list") this.loadRuns();
    else this.loadRun(route.run);
  }

  refresh() {
    const { route, run, link, login } = this.state();
    if (document.hidden || link.phase !== "open" || login === "needed") return;
    if (route.name === "list") this.loadRuns();
    else if (run?.state === "running" && run.last_step !== null) this.loadNonfinite(route.run);
  }

  searchSoon() {
    clearTimeout(this.searchTimer);
    this.searchTimer = setTimeout(() => this.loadRuns(), 200);
  }

  async loadRuns() {
    const { route, list } = this.state();
    if (route.name !== "list") return;
    const parameters = new URLSearchParams({ limit: String(list.limit), ...(route.query ? { q: route.query } : {}) });
    const answer = await this.attempt(() => request(`api/runs?${parameters}`));
    const now = this.state().route;
    if (answer && now.name === "list" && now.query === route.query) {
      this.send({ type: "runs", runs: answer.runs, total: answer.total });
      this.send({ type: "problem", problem: null });
    }
  }

  /** @param {string} id */
  async loadRun(id) {
    const path = encodeURIComponent(id);
    const run = await this.attempt(() => request(`api/runs/${path}`));
    if (!run) return;
    this.send({ type: "run", run });
    this.landscape.loadSoon();
    await Promise.all([
      this.attempt(async () => this.send({ type: "events", run: id, ...(await request(`api/runs/${path}/events`)) }), {
        quiet: true,
      }),
      this.attempt(async () => this.send({ type: "alerts", run: id, ...(await request(`api/alerts?run=${path}`)) }), {
        quiet: true,
      }),
      run.last_step === null ? null : this.loadNonfinite(id), // without a step it has no series yet
    ]);
  }

  /** How many steps of the whole run were not finite. @param {string} id */
  async loadNonfinite(id) {
    const answer = await this.attempt(
      () => request(`api/runs/${encodeURIComponent(id)}/series?columns=1`), // not every run has the series overflowed
      { quiet: true },
    );
    if (!answer) return;
    this.send({ type: "nonfinite", run: id, steps: nonfiniteIn(answer.series) });
  }

  /**
   * Tries, and says in the state what went wrong; a quiet failure only matters when it is about the login.
   * @template T @param {() => Promise<T>} what @param {{quiet?: boolean}} [options] @returns {Promise<T | null>}
   */
  async attempt(what, { quiet = false } = {}) {
    try {
      const answer = await what();
      if (this.state().login !== "fine") this.send({ type: "login", need: false });
      return answer;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.failed(error, quiet);
      return null;
    }
  }

  /** @param {ApiError} error @param {boolean} quiet */
  failed(error, quiet) {
    if (error.status === 401) {
      if (this.state().login !== "needed") this.send({ type: "login", need: true });
      return;
    }
    // An unreachable server is the connection's story, told by the banner.
    if (quiet || error.status === 0) return;
    const unknown = {
      kind: "unknown",
      text: "Perhaps it was deleted, or its training has not reported yet: then it appears here by itself.",
    };
    const problem =
      error.status === 404 ? unknown : error.status === 410 ? deletedProblem : { kind: "server", text: error.message };
    this.send({ type: "problem", problem });
  }
}
