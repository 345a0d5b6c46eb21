// The workbench: mark objects in a frame, follow them, look at any frame, correct, go on.

import { Api } from "./api.js";
import { runWords, showFiles, showFormats, showMemory, showObjects, showTrack } from "./panels.js";
import { picture, View } from "./view.js";

const POLL = 250; // milliseconds between two looks at a run
const PING = 60_000; // and between two signs of life
const STORED = "stremn-project";
const TOOLS = ["select", "off", "brush", "eraser"];

class Workbench {
  constructor(root, settings) {
    this.root = root;
    this.api = null;
    this.state = null;
    this.index = 0;
    this.chosen = 1;
    this.playing = null;
    this.chain = Promise.resolve(); // gestures are answered one after the other
    this.pending = 0;
    this.shown = 0; // number of the latest picture asked for
    this.live = true; // show the run's frames as they come
    this.seen = -1; // the run's frame that was shown last
    this.showing = false; // whether its picture is still being loaded
    this.view = new View(this.$("canvas"), (mark) => this.mark(mark));
    this.#fillSettings(settings);
    this.#connect();
  }

  $(selector) {
    return this.root.querySelector(selector);
  }

  id(name) {
    return this.$(`[data-id=${name}]`);
  }

  // After the page was loaded again: go on with what was open, if the server still has it.
  async reopen() {
    const key = sessionStorage.getItem(STORED);
    if (!key || this.api) return;
    const known = await new Api(document.baseURI, key).get("state").catch(() => null);
    if (known && !this.api) await this.open(key);
  }

  async open(key) {
    clearTimeout(this.timer);
    this.stop();
    if (key) sessionStorage.setItem(STORED, key);
    else sessionStorage.removeItem(STORED);
    this.root.hidden = !key;
    this.hush();
    this.id("objects").querySelector("input:focus")?.blur(); // a name for the earlier video
    this.api?.do("pause").catch(() => {}); // runs wait for one another
    const api = (this.api = key ? new Api(document.baseURI, key) : null);
    if (!key) return;
    Object.assign(this, { index: 0, chosen: 1, state: null, seen: -1 });
    try {
      const state = await api.get("state");
      if (api !== this.api) return;
      this.view.resize(state.width, state.height);
      this.choose("select");
      this.update(state);
      await this.go(0, true);
    } catch (error) {
      if (api === this.api) this.tell(error);
    }
  }

  // ------------------------------------------------------------ state

  update(state) {
    const before = this.state;
    this.state = state;
    const known = state.objects.map((one) => one.id);
    if (!known.includes(this.chosen)) this.chosen = known.at(-1) ?? 0;
    this.view.color = state.objects.find((one) => one.id === this.chosen)?.color ?? "#888";
    this.view.colors = state.objects.map((one) => one.color);
    showObjects(this.id("objects"), state.objects, this.chosen, {
      choose: (id, again = true) => this.after(() => this.pick(id, again)),
      rename: (object, name) => this.after(() => this.do("name", { object, name })),
      remove: (object) => this.after(() => this.do("remove", { object })),
    });
    showTrack(this.$(".wb-track"), state);
    this.id("scrub").max = state.frames - 1;
    this.$("[data-do=undo]").disabled = !state.can_undo;
    this.$("[data-do=redo]").disabled = !state.can_redo;
    this.id("clear").disabled = !state.drawn.includes(this.index);
    this.id("notice").textContent = state.notice;
    this.id("notice").hidden = !state.notice;
    this.#showRun(state.status);
    this.#showExport(state.export);
    if (before && before.version !== state.version) this.look();
    clearTimeout(this.timer);
    const busy = state.status.running || state.export.running;
    this.timer = setTimeout(() => this.poll(), busy ? POLL : PING);
  }

  #showRun(status) {
    const run = this.id("run");
    run.textContent = status.running ? "Pause" : this.state.followed.length ? "Continue" : "Follow";
    const undone = !status.running && status.stage !== "failed" && !this.state.followed.length;
    this.id("words").textContent = runWords(undone ? { stage: "idle" } : status);
    this.id("words").classList.toggle("wb-wrong", status.stage === "failed");
    const progress = this.id("progress");
    progress.hidden = !status.running;
    progress.max = status.total ?? 1;
    if (["following", "adapting"].includes(status.stage)) progress.value = status.done;
    else progress.removeAttribute("value");
  }

  #showExport(told) {
    const written = this.id("written");
    written.hidden = !told.running;
    written.max = told.total || 1;
    written.value = told.done;
    this.id("prepare").disabled = told.running;
    const link = (name) => this.api.url(`download/${encodeURIComponent(name)}`);
    const files = JSON.stringify([told.files, told.words]);
    if (files !== this.files) {
      this.files = files;
      showFiles(this.id("files"), told, link);
    }
  }

  // Look at a run. If the look before failed (`again`), an answer ends what was told about that.
  async poll(again = false) {
    const { api } = this;
    try {
      const state = await api.get("state");
      if (api !== this.api) return;
      if (again) this.hush();
      const { frame, running } = state.status;
      const ended = this.state.status.running && !running;
      this.update(state);
      // A slow line shows fewer frames: each is waited for. The last one is shown in any case.
      const due = ended || (running && !this.showing);
      if (!due || !this.live || this.view.gesture || frame < 0 || frame === this.seen) return;
      this.seen = frame;
      this.showing = true;
      await this.go(frame, true).finally(() => (this.showing = false));
    } catch (error) {
      if (api !== this.api) return;
      this.tell(error);
      this.timer = setTimeout(() => this.poll(true), 10 * POLL);
    }
  }

  // Ask for a change; what was there before stays if it is refused.
  async do(what, told = {}) {
    const { api } = this;
    this.hush();
    try {
      const state = await api.do(what, told);
      if (api !== this.api) return false; // another video was opened
      this.update(state);
      return true;
    } catch (error) {
      if (api !== this.api) return false;
      this.tell(error);
      const state = await api.get("state").catch(() => this.state);
      if (api === this.api) this.update(state);
      return false;
    }
  }

  // Carry out `act` after all earlier gestures, unless another video is opened before its turn.
  after(act) {
    const { api } = this;
    this.chain = this.chain
      .then(() => api === this.api && act())
      .catch((error) => api === this.api && this.tell(error));
    return this.chain;
  }

  // ------------------------------------------------------------ looking

  async go(index, live = false) {
    const { frames } = this.state;
    this.index = Math.min(Math.max(index, 0), frames - 1);
    this.live = live || (this.live && !this.state.status.running);
    this.id("scrub").value = this.index;
    this.id("number").textContent = `${this.index} / ${frames - 1}`;
    this.id("clear").disabled = !this.state.drawn.includes(this.index);
    this.view.left = null;
    await this.look();
  }

  // Show frame, masks and memory of the current index.
  async look() {
    const turn = ++this.shown;
    const { api, index } = this;
    const [frame, mask] = await Promise.all([
      picture(api.url(`frame/${index}.jpg`)),
      picture(api.url(`mask/${index}.png?${Date.now()}`)),
    ]);
    if (turn !== this.shown || api !== this.api) return; // something later was asked for
    this.view.show(frame, mask);
    if (!this.pending) this.view.forget();
    if (this.playing) return; // the memory is shown where it stops
    const memory = await api.get(`memory/${index}`).catch(() => null);
    if (turn !== this.shown || !memory) return;
    const names = new Map(this.state.objects.map(({ id, name }) => [id, name]));
    const made = `${this.state.version}-${this.state.status.stage}`; // what it may be kept for
    const small = (at, id) => api.url(`thumbnail/${at}/${id}.jpg?${made}`);
    showMemory(this.id("slots"), memory, names, small, (at) => this.go(at));
    const size = memory.bytes ? `(${(memory.bytes / 1e6).toFixed(1)} MB)` : "";
    this.id("bytes").textContent = size;
    this.$(".wb-memory").hidden = !memory.objects.length;
  }

  play() {
    if (this.playing) return this.stop();
    if (this.index >= this.state.frames - 1) this.index = -1;
    const wait = 1000 / Math.min(this.state.fps ?? 25, 25);
    const next = async () => {
      const began = performance.now();
      await this.go(this.index + 1);
      if (!this.playing || this.index >= this.state.frames - 1) return this.stop();
      this.playing = setTimeout(next, Math.max(0, wait - (performance.now() - began)));
    };
    this.playing = setTimeout(next, 0);
    this.id("play").textContent = "❚❚";
    this.id("play").ariaLabel = "Stop";
  }

  stop() {
    if (!this.playing) return;
    clearTimeout(this.playing);
    this.playing = null;
    this.look();
    this.id("play").textContent = "▶";
    this.id("play").ariaLabel = "Play";
  }

  // ------------------------------------------------------------ marking

  choose(tool) {
    this.view.tool = tool;
    for (const button of this.root.querySelectorAll("[data-tool]")) {
      const on = button.dataset.tool === tool;
      button.ariaChecked = String(on);
      button.tabIndex = on ? 0 : -1;
    }
    for (const part of this.root.querySelectorAll(".wb-brush")) part.hidden = !this.view.painting;
    this.view.draw();
  }

  pick(id, again = true) {
    this.chosen = id;
    if (again) return this.update(this.state);
    this.view.color = this.state.objects.find((one) => one.id === id)?.color ?? "#888";
    for (const row of this.id("objects").children) {
      const name = row.querySelector("input").ariaLabel;
      row.classList.toggle("wb-chosen", name === `Name of object ${id}`);
    }
  }

  mark(mark) {
    this.stop();
    const other = mark.kind === "click" && mark.on && this.view.colorAt(mark.x, mark.y);
    const found = other && this.state.objects.find((one) => one.color === other);
    if (found && found.id !== this.chosen) {
      this.view.forget();
      return this.after(() => this.pick(found.id)); // a click on another object chooses it
    }
    const told = { frame: this.index, mark };
    this.live = false; // the marked frame stays in view; the run may show no later one
    this.pending += 1;
    this.$(".wb-busy").hidden = false;
    this.after(async () => {
      if (!this.chosen && !(await this.add())) return;
      await this.do("mark", { ...told, object: this.chosen });
    }).then(() => {
      this.pending -= 1;
      this.$(".wb-busy").hidden = this.pending > 0 ? false : true;
      if (!this.pending) this.view.forget();
    });
  }

  async add() {
    const before = this.state.objects.map((one) => one.id);
    if (!(await this.do("add"))) return false;
    const fresh = this.state.objects.find((one) => !before.includes(one.id));
    if (fresh) this.pick(fresh.id);
    return true;
  }

  // ------------------------------------------------------------ running

  settings() {
    const told = {};
    for (const field of this.id("settings").querySelectorAll("[name]")) {
      if (field.disabled) continue; // the model has no such setting
      if (field.type === "checkbox") told[field.name] = field.checked;
      else told[field.name] = field.type === "number" ? Number(field.value) : field.value;
    }
    return told;
  }

  async run() {
    this.stop();
    if (this.state.status.running) {
      await this.do("pause");
      return;
    }
    Object.assign(this, { live: true, seen: -1 });
    const settings = this.settings();
    await this.after(() => this.do("follow", settings));
  }

  #fillSettings({ policies, memory_slots, size, adapts, formats }) {
    showFormats(this.id("formats"), formats);
    const form = this.id("settings");
    const options = policies.map((name) => new Option(name, name));
    form.querySelector("[name=policy]").replaceChildren(...options);
    form.querySelector("[name=memory_slots]").value = memory_slots;
    form.querySelector("[name=both]").checked = true;
    this.id("snap").checked = this.view.snap;
    form.querySelector("[name=size]").value = size ?? "";
    for (const [name, there] of [["size", size !== null], ["adapt", adapts]]) {
      const field = form.querySelector(`[name=${name}]`);
      field.disabled = !there;
      field.closest("label").hidden = !there;
    }
  }

  // ------------------------------------------------------------ telling

  tell(error) {
    const alert = this.$(".wb-alert");
    alert.textContent = error.message;
    alert.hidden = false;
  }

  hush() {
    this.$(".wb-alert").hidden = true;
  }

  // ------------------------------------------------------------ widgets and keys

  #connect() {
    for (const button of this.root.querySelectorAll("[data-tool]")) {
      button.onclick = () => this.choose(button.dataset.tool);
    }
    for (const button of this.root.querySelectorAll("[data-do]")) {
      button.onclick = () => this.after(() => this.do(button.dataset.do));
    }
    this.id("clear").onclick = () => {
      const frame = this.index;
      this.after(() => this.do("clear", { frame }));
    };
    this.id("add").onclick = () => this.after(() => this.add());
    this.id("prepare").onclick = () => {
      const boxes = [...this.id("formats").querySelectorAll("input")];
      this.do("export", { formats: boxes.filter((box) => box.checked).map((box) => box.name) });
    };
    this.id("run").onclick = () => this.run();
    this.id("play").onclick = () => this.play();
    this.id("scrub").oninput = () => {
      this.stop();
      this.go(Number(this.id("scrub").value));
    };
    this.id("radius").oninput = () => {
      this.view.radius = Number(this.id("radius").value);
    };
    this.id("snap").onchange = () => {
      this.view.snap = this.id("snap").checked;
    };
    this.id("maskfile").onchange = (event) => {
      const [file] = event.target.files;
      event.target.value = "";
      if (!file) return;
      this.hush();
      const { api, index } = this;
      this.after(async () => {
        const state = await api.sendMask(index, file);
        if (api === this.api) this.update(state);
      });
    };
    document.addEventListener("keydown", (event) => this.#key(event));
  }

  #key(event) {
    if (!this.api || this.root.hidden || !this.root.offsetParent) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { target } = event;
    const field = target.matches?.("input, select, textarea, [contenteditable]");
    const scrub = target === this.id("scrub");
    if (field && !scrub && target.type !== "checkbox") return;
    const pressed = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const inRadios = target.matches?.("[data-tool]") && pressed.startsWith("Arrow");
    if (inRadios) {
      const step = pressed === "ArrowRight" || pressed === "ArrowDown" ? 1 : TOOLS.length - 1;
      this.choose(TOOLS[(TOOLS.indexOf(this.view.tool) + step) % TOOLS.length]);
      this.$(`[data-tool=${this.view.tool}]`).focus();
      return event.preventDefault();
    }
    const pressable = !scrub && target.matches?.("button, summary, input");
    if (pressed === " " && pressable) return; // it presses them
    const far = event.shiftKey ? 10 : 1;
    const move = (index) => {
      this.stop();
      this.go(index);
    };
    const actions = {
      ArrowLeft: () => move(this.index - far),
      ArrowRight: () => move(this.index + far),
      Home: () => move(0),
      End: () => move(this.state.frames - 1),
      " ": () => (this.state.status.running ? this.run() : this.play()),
      f: () => this.run(),
      n: () => this.after(() => this.add()),
      z: () => this.after(() => this.do(event.shiftKey ? "redo" : "undo")),
      "[": () => this.#thicker(0.8),
      "]": () => this.#thicker(1.25),
    };
    TOOLS.forEach((tool, place) => (actions[String(place + 1)] = () => this.choose(tool)));
    if (!this.state || !actions[pressed]) return;
    event.preventDefault();
    actions[pressed]();
  }

  #thicker(factor) {
    const slider = this.id("radius");
    slider.value = Math.round(Number(slider.value) * factor + (factor > 1 ? 0.5 : -0.5));
    this.view.radius = Number(slider.value);
    this.view.draw();
  }
}

export function start(root, settings) {
  return new Workbench(root, settings);
}
