// @ts-check
/** The wire: JSON over HTTP, frames over the live socket. All addresses are relative to the page. */

import { decodeAll, SUBPROTOCOL } from "./frames.js";

/** What the server said when it refused; status 0 means it could not be reached. */
export class ApiError extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.name = "ApiError";
    this.status = status;
  }
}

/** @param {string} path @param {RequestInit} [options] @returns {Promise<any>} */
export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { Accept: "application/json", ...options.headers } });
  } catch {
    throw new ApiError(0, "The server cannot be reached.");
  }
  const body = await response.json().catch(() => null);
  if (!response.ok) {
    const detail =
      typeof body?.detail === "string"
        ? body.detail
        : `The server answered ${response.status} ${response.statusText}`.trim();
    throw new ApiError(response.status, detail);
  }
  return body;
}

/** @param {string} token @returns {Promise<boolean>} whether the token was right */
export async function login(token) {
  const response = await fetch("login", { method: "POST", body: new URLSearchParams({ token }) });
  if (response.status >= 500) throw new ApiError(response.status, `The server answered ${response.status}.`);
  return response.ok;
}

/**
 * Seconds to wait before the nth try: doubling up to 15, with jitter, so that many pages do not return at once.
 * @param {number} attempt from 0 @param {() => number} [random]
 */
export const retryDelay = (attempt, random = Math.random) =>
  Math.min(15, 0.5 * 2 ** Math.min(attempt, 8)) * (0.5 + random() / 2);

const SILENT_FOR = 25_000; // ms without a word: the server beats every 5 s, so the socket is dead

/**
 * One live socket that comes back by itself and subscribes again to what it was last asked for.
 *
 * @typedef {object} LiveHandlers
 * @property {(frame: import("./frames.js").Frame) => void} frame
 * @property {(phase: {phase: "connecting" | "open" | "waiting", retryAt?: number, reason?: string}) => void} phase
 */
export class LiveConnection {
  /** @param {LiveHandlers} handlers */
  constructor(handlers) {
    this.handlers = handlers;
    /** @type {WebSocket | null} */ this.socket = null;
    /** @type {object | null} */ this.wanted = null;
    this.attempt = 0;
    this.retryTimer = 0;
    this.silenceTimer = 0;
    this.closed = false;
  }

  /** Opens the socket now; a pending wait is cut short. */
  open() {
    clearTimeout(this.retryTimer);
    if (this.closed || this.socket) return;
    this.handlers.phase({ phase: "connecting" });
    const url = new URL("api/live", document.baseURI);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.hash = "";
    const socket = new WebSocket(url, SUBPROTOCOL);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.socket === socket && this.opened();
    socket.onmessage = (event) => this.socket === socket && this.received(event.data);
    socket.onclose = (event) => this.lost(socket, event.reason);
    this.socket = socket;
  }

  /** Lets go of a socket that may be dead and opens another at once. */
  renew() {
    const old = this.socket;
    this.socket = null;
    old?.close(4002, "renewed");
    this.open();
  }

  opened() {
    this.handlers.phase({ phase: "open" });
    this.listen();
    if (this.wanted) this.send(this.wanted);
  }

  /** @param {ArrayBuffer | string} data */
  received(data) {
    this.attempt = 0;
    this.listen();
    if (typeof data === "string") return;
    try {
      for (const frame of decodeAll(new Uint8Array(data))) this.handlers.frame(frame);
    } catch (error) {
      console.error("gradwatch: a message from the server could not be read", error);
      this.socket?.close(4000, "unreadable frame");
    }
  }

  /** @param {WebSocket} socket @param {string} reason */
  lost(socket, reason) {
    if (this.socket !== socket) return;
    this.socket = null;
    clearTimeout(this.silenceTimer);
    if (this.closed) return;
    const delay = retryDelay(this.attempt++);
    this.handlers.phase({ phase: "waiting", retryAt: Date.now() / 1000 + delay, reason });
    this.retryTimer = setTimeout(() => this.open(), delay * 1000);
  }

  listen() {
    clearTimeout(this.silenceTimer);
    this.silenceTimer = setTimeout(() => {
      const dead = this.socket;
      dead?.close(4001, "silent");
      if (dead) this.lost(dead, "nothing was heard for 25 s");
    }, SILENT_FOR);
  }

  /** Asks for a view; it replaces the one asked for before. @param {object} message */
  subscribe(message) {
    this.wanted = message;
    this.send(message);
  }

  /** @param {object} message */
  send(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  close() {
    this.closed = true;
    clearTimeout(this.retryTimer);
    clearTimeout(this.silenceTimer);
    this.socket?.close();
    this.socket = null;
  }
}
