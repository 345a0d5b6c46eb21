// What stands round the frame: objects, time line, memory and the words about a run.

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// The list of objects; what a visitor typed is only ever set as text.
export function showObjects(list, objects, chosen, { choose, rename, remove }) {
  const typing = list.contains(document.activeElement) && document.activeElement.type === "text";
  const told = JSON.stringify([objects, chosen]);
  // A new list would take the focus, and the click from a button that is pressed just now.
  if (typing || list.matches(":active") || list.dataset.told === told) return;
  list.dataset.told = told; // what it shows; deleted where a visitor changes that
  list.replaceChildren(
    ...objects.map(({ id, name, color }) => {
      const swatch = make("button", {
        type: "button",
        className: "wb-swatch",
        title: `Mark ${name}`,
        ariaPressed: String(id === chosen),
        onclick: () => choose(id),
      });
      swatch.style.background = color;
      const field = make("input", {
        type: "text",
        value: name,
        maxLength: 60,
        ariaLabel: `Name of object ${id}`,
        onfocus: () => {
          delete list.dataset.told;
          choose(id, false);
        },
        onchange: () => {
          delete list.dataset.told;
          rename(id, field.value);
        },
      });
      field.addEventListener("keydown", (event) => event.key === "Enter" && field.blur());
      const gone = make(
        "button",
        { type: "button", title: `Remove ${name}`, ariaLabel: `Remove ${name}`, onclick: () => remove(id) },
        "×",
      );
      const row = make("li", { className: id === chosen ? "wb-chosen" : "" }, swatch, field, gone);
      row.style.setProperty("--color", color);
      return row;
    }),
  );
}

// Stretches that were followed, and frames with marks, along the time line.
export function showTrack(track, { frames, followed, drawn }) {
  const part = (x) => `${(100 * x) / Math.max(frames, 1)}%`;
  const stretches = followed.map(([from, to]) => {
    const bar = make("i");
    bar.style.left = part(from);
    bar.style.width = part(to - from);
    return bar;
  });
  const marks = drawn.map((index) => {
    const mark = make("b", { title: `Marked in frame ${index}` });
    mark.style.left = part(index + 0.5);
    return mark;
  });
  track.replaceChildren(...stretches, ...marks);
}

export function inWords(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

// How a run goes, in a sentence.
export function runWords(status) {
  const { stage, done, total, rate, memory, words } = status;
  const held = memory ? ` The memory takes ${(memory / 1e6).toFixed(1)} MB, however long the video is.` : "";
  switch (stage) {
    case "waiting":
      return "Waiting for another visitor's run…";
    case "loading":
      return "Loading the network…";
    case "adapting":
      return `Adapting the network: step ${done} of ${total}`;
    case "following": {
      const left = status.seconds_left === null ? "" : `, ${inWords(status.seconds_left)} left`;
      return `${done} of ${total ?? "?"} frames, ${rate.toFixed(1)} frames/s${left}`;
    }
    case "paused":
      return status.frame < 0
        ? "Paused."
        : `Paused after frame ${status.frame}. Correct the mask, then press Continue.`;
    case "done":
      return `Done: ${done} frames.${held} To correct a frame, mark it there and press Continue.`;
    case "failed":
      return words;
    default:
      return "Mark an object, then press Follow.";
  }
}

// The frames in every object's slots.
export function showMemory(panel, { objects }, names, thumbnail, go) {
  panel.replaceChildren(
    ...objects.map(({ id, slots, pinned }) => {
      const held = slots
        .map((frame, place) => ({ frame, pinned: pinned[place] }))
        .sort((a, b) => (a.frame ?? Infinity) - (b.frame ?? Infinity));
      const tiles = held.map(({ frame, pinned: given }) => {
        if (frame === null) return make("span", { className: "wb-empty" }, "empty");
        const words = `frame ${frame}${given ? ", given" : ""}`;
        const image = make("img", { src: thumbnail(frame, id), alt: "", loading: "lazy" });
        const tile = { type: "button", className: "wb-tile", title: `Go to ${words}` };
        return make("button", { ...tile, onclick: () => go(frame) }, image, make("small", {}, words));
      });
      const label = make("div", { className: "wb-who" }, names.get(id) ?? `Object ${id}`);
      return make("div", { className: "wb-row" }, label, make("div", { className: "wb-tiles" }, ...tiles));
    }),
  );
}

// Check boxes for the formats.
export function showFormats(panel, formats) {
  panel.replaceChildren(
    ...formats.map(({ name, words }, place) => {
      const box = make("input", { type: "checkbox", name, checked: place < 2 });
      return make("label", { className: "wb-check" }, box, ` ${words}`);
    }),
  );
}

// Links to the files that were prepared.
export function showFiles(list, { files, words }, link) {
  const rows = files.map(({ name, bytes }) => {
    const size = bytes < 1e5 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
    return make("li", {}, make("a", { href: link(name), download: name }, name), ` ${size}`);
  });
  if (words) rows.push(make("li", { className: "wb-wrong" }, words));
  list.replaceChildren(...rows);
}
