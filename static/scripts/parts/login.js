// @ts-check
/** The login view: shown when the server wants a token. */

import { h, setText } from "../dom.js";

export class LoginView {
  /** @param {{actions: import("../actions.js").Actions}} context */
  constructor({ actions }) {
    this.problem = h("p", { className: "problem", role: "alert" });
    this.token = h("input", {
      id: "token",
      name: "token",
      type: "password",
      autocomplete: "current-password",
      required: true,
      spellcheck: "false",
    });
    this.button = h("button", { className: "primary", type: "submit" }, "Log in");
    const form = h(
      "form",
      {
        className: "card login",
        method: "post",
        action: "login",
        onSubmit: (/** @type {Event} */ event) => {
          event.preventDefault();
          this.button.disabled = true;
          actions.login(this.token.value).finally(() => (this.button.disabled = false));
        },
      },
      h("h1", {}, "This gradwatch asks for a token"),
      h("p", {}, "It was given to the server when it was started (option or variable GRADWATCH_TOKEN)."),
      h("label", { for: "token" }, "Token"),
      this.token,
      this.problem,
      this.button,
    );
    this.element = h("main", { className: "centred" }, form);
  }

  /** @param {import("../state.js").State} state */
  update(state) {
    setText(this.problem, state.loginProblem);
  }
}
