// @ts-check
/**
 * Who draws when: at most one panel per animation frame and each at most four times a second, so that no task grows
 * long; nothing while the tab is hidden or the panel is being dragged.
 */

/**
 * @typedef {object} Clock
 * @property {(callback: () => void) => void} frame @property {() => number} now @property {() => boolean} hidden
 * @property {(callback: () => void, ms: number) => void} delay
 */
/** @typedef {{draw: () => void, dirty: boolean, urgent: boolean, drawnAt: number, paused: boolean}} Task */

export class Pacer {
  /**
   * @param {Clock} clock
   * @param {number} [interval] ms between two drawings of one panel
   */
  constructor(clock, interval = 250) {
    this.clock = clock;
    this.interval = interval;
    /** @type {Map<object, Task>} */ this.tasks = new Map();
    this.framed = false; // an animation frame is asked for
    this.timed = false; // a timer will ask for one
  }

  /** @param {object} key @param {() => void} draw */
  add(key, draw) {
    this.tasks.set(key, { draw, dirty: false, urgent: false, drawnAt: -Infinity, paused: false });
  }

  /** @param {object} key */
  remove(key) {
    this.tasks.delete(key);
  }

  /**
   * Asks for a drawing; an urgent one (the person did something) does not wait for its turn in time.
   * @param {object} key @param {boolean} [urgent]
   */
  mark(key, urgent = false) {
    const task = this.tasks.get(key);
    if (!task) return;
    task.dirty = true;
    task.urgent ||= urgent;
    this.wake();
  }

  /** Whether a drawing is still to come (a paused one does not count). @param {object} key */
  isDue(key) {
    const task = this.tasks.get(key);
    return Boolean(task?.dirty && !task.paused);
  }

  /** @param {object} key @param {boolean} paused */
  pause(key, paused) {
    const task = this.tasks.get(key);
    if (task) task.paused = paused;
    this.wake();
  }

  /** Call when something that held drawings back is over: a tab shown again. */
  wake() {
    if (this.framed || this.clock.hidden()) return;
    const due = this.nextDue();
    if (due === null) return;
    if (due <= 4) {
      this.framed = true;
      this.clock.frame(() => this.turn());
    } else if (!this.timed) {
      this.timed = true;
      this.clock.delay(() => {
        this.timed = false;
        this.wake();
      }, due);
    }
  }

  /** Milliseconds until a task may be drawn, or null. */
  nextDue() {
    let due = null;
    for (const task of this.tasks.values()) {
      if (!task.dirty || task.paused) continue;
      const wait = task.urgent ? 0 : Math.max(0, task.drawnAt + this.interval - this.clock.now());
      due = due === null ? wait : Math.min(due, wait);
    }
    return due;
  }

  turn() {
    this.framed = false;
    if (this.clock.hidden()) return;
    const now = this.clock.now();
    const ready = [...this.tasks.values()].filter(
      (task) => task.dirty && !task.paused && (task.urgent || now - task.drawnAt >= this.interval - 4),
    );
    // Longest undrawn first, urgent or not: a moving pointer is urgent all the time and must not starve the charts.
    ready.sort((a, b) => a.drawnAt - b.drawnAt);
    const task = ready[0];
    if (task) {
      Object.assign(task, { dirty: false, urgent: false, drawnAt: now });
      task.draw();
    }
    this.wake();
  }
}

/** The pacer of a real page. */
export function pagePacer() {
  const pacer = new Pacer({
    frame: (callback) => requestAnimationFrame(callback),
    now: () => performance.now(),
    hidden: () => document.hidden,
    delay: (callback, ms) => setTimeout(callback, ms),
  });
  document.addEventListener("visibilitychange", () => pacer.wake());
  return pacer;
}
