// The server's routes for one project.

export class Api {
  constructor(base, key) {
    this.root = new URL(`workbench/project/${encodeURIComponent(key)}/`, base);
  }

  url(path) {
    return new URL(path, this.root).href;
  }

  async #answer(request) {
    let response;
    try {
      response = await request;
    } catch {
      throw new Error("The server does not answer. Is it still running?");
    }
    const told = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(told.error ?? `The server answered ${response.status}.`);
    return told;
  }

  get(path) {
    return this.#answer(fetch(this.url(path), { cache: "no-store" }));
  }

  // Make a change; the answer is the state after it.
  do(what, told = {}) {
    return this.#answer(
      fetch(this.url(`do/${what}`), {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(told),
      }),
    );
  }

  sendMask(frame, file) {
    return this.#answer(fetch(this.url(`mask-file/${frame}`), { method: "POST", body: file }));
  }
}
