// @ts-check
/** Where the parts meet: the state, its messages, the page at hand, and the keys. */

import { Actions } from "./actions.js";
import { Feed } from "./feed.js";
import { pagePacer } from "./pacer.js";
import { LoginView } from "./parts/login.js";
import { Banner, Toasts } from "./parts/notices.js";
import { RunList } from "./parts/runlist.js";
import { RunPage } from "./parts/runpage.js";
import { TopBar } from "./parts/topbar.js";
import { parseRoute } from "./route.js";
import { initialState, openAlerts, reduce } from "./state.js";
import { applyTheme } from "./theme.js";

/** @typedef {import("./state.js").State} State */
/** @typedef {import("./state.js").Message} Message */

const now = () => Date.now() / 1000;
let state = initialState(parseRoute(location.hash), now());
const pacer = pagePacer();
/** @type {RunPage | null} */ let runPage = null;
/** @type {{element: HTMLElement, update: (state: State) => void} | null} */ let page = null;

/** The frame of the page is redrawn at the pacer's rhythm; what a person does shows at once. */
const URGENT = new Set([
  "route",
  "cursor",
  "panning",
  "login",
  "dismiss",
  "acknowledged",
  "problem",
  "run",
  "landscape-asked",
]);

/** @param {Message} message */
function send(message) {
  const before = state;
  state = reduce(state, message);
  if (state === before) return;
  const arrived = state.view.loading !== before.view.loading;
  pacer.mark(shell, arrived || URGENT.has(message.type));
}

const feed = new Feed(
  () => state,
  send,
  () => (runPage?.panels[0].size.width ? runPage.plotWidth() : likelyPlotWidth()),
);
const actions = new Actions(() => state, send, feed, routed);
const context = { state: () => state, send, pacer, actions };
const [topbar, banner, toasts] = [new TopBar(), new Banner(context), new Toasts(context)];
const shell = { topbar, banner, toasts };
pacer.add(shell, update);

/** Before the page is laid out: what the style sheet will leave for a plot. */
const likelyPlotWidth = () => Math.max(240, innerWidth - (innerWidth > 1160 ? 550 : innerWidth > 760 ? 240 : 102));

function update() {
  choosePage();
  for (const part of Object.values(shell)) part.update(state);
  page?.update(state);
  const open = openAlerts(state);
  const name = state.route.name === "run" && state.run ? `${state.run.name || state.run.id} · ` : "";
  document.title = `${open ? `(${open}!) ` : ""}${name}gradwatch`;
}

/** Puts the view in place that the state asks for: login, list or run. */
function choosePage() {
  const wanted = state.login === "needed" ? LoginView : state.route.name === "list" ? RunList : RunPage;
  if (page instanceof wanted) return;
  runPage?.destroy();
  page?.element.remove();
  page = new wanted(context);
  runPage = page instanceof RunPage ? page : null;
  banner.element.after(page.element);
  if (page instanceof LoginView) page.token.focus();
}

/** Follows the address. */
function routed() {
  const before = state.route;
  const route = parseRoute(location.hash);
  send({ type: "route", route });
  const sameRun =
    before.name === "run" && route.name === "run" && before.run === route.run && before.attempt === route.attempt;
  const moved = !sameRun || JSON.stringify(before.view) !== JSON.stringify(route.view);
  if (before.name === "list" && route.name === "list") return;
  if (!sameRun) feed.load();
  if (moved) feed.subscribe();
  if (!sameRun) feed.subscribeTail();
}

/** @type {Record<string, (event: KeyboardEvent) => void>} */
const KEYS = {
  f: () => actions.follow(),
  0: () => actions.reset(),
  "+": () => actions.scale(0.5),
  "=": () => actions.scale(0.5),
  "-": () => actions.scale(2),
  ArrowLeft: (event) => (event.shiftKey ? actions.pan(-0.25) : actions.movePoint(-1)),
  ArrowRight: (event) => (event.shiftKey ? actions.pan(0.25) : actions.movePoint(1)),
  n: () => actions.nextEvent(1),
  p: () => actions.nextEvent(-1),
  Escape: () => actions.release(),
  t: () => topbar.nextTheme(),
  "?": () => topbar.help.showModal(),
  "/": (event) => {
    event.preventDefault();
    if (page instanceof RunList) page.search.focus();
  },
};

/** @param {KeyboardEvent} event */
function pressed(event) {
  const inField = event.target instanceof HTMLElement && event.target.matches("input, select, textarea");
  if (inField || event.ctrlKey || event.metaKey || event.altKey || topbar.help.open || state.login === "needed") return;
  if (Object.hasOwn(KEYS, event.key)) KEYS[event.key](event);
}

/** A much wider or narrower plot asks for other columns. */
function watchWidth() {
  let asked = innerWidth;
  let timer = 0;
  addEventListener("resize", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (Math.abs(innerWidth - asked) < 0.2 * asked || state.route.name !== "run") return;
      asked = innerWidth;
      feed.subscribe();
    }, 300);
  });
}

applyTheme();
document.body.append(topbar.element, banner.element, toasts.element);
addEventListener("hashchange", routed);
addEventListener("popstate", routed);
addEventListener("keydown", pressed);
addEventListener("online", () => actions.reconnect());
setInterval(() => send({ type: "clock", now: now() }), 1_000);
watchWidth();
update();
feed.subscribe();
feed.subscribeTail();
feed.open();
