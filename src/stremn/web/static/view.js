// The frame with its masks, and the gestures made on it.

const DRAG = 6; // screen pixels from which a click is a box

export class View {
  // `onMark` is told every gesture in pixels of the frame.
  constructor(canvas, onMark) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
    this.onMark = onMark;
    this.tool = "select";
    this.radius = 14; // of the brush, in screen pixels
    this.snap = true;
    this.color = "#4285f4";
    this.colors = []; // of all objects
    this.frame = null;
    this.mask = null;
    this.gesture = null; // what is being drawn now
    this.left = null; // the last gesture, shown until its answer is there
    this.hover = null;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", () => this.#end());
    canvas.addEventListener("pointerleave", () => {
      this.hover = null;
      this.draw();
    });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  resize(width, height) {
    this.canvas.width = width;
    this.canvas.height = height;
    this.canvas.style.setProperty("--ratio", width / height);
    this.frame = this.mask = this.left = null;
  }

  show(frame, mask) {
    this.frame = frame;
    this.mask = mask;
    this.draw();
  }

  forget() {
    this.left = null;
    this.draw();
  }

  // The color of the object at a pixel of the frame, as in "#4285f4"; null where there is none.
  colorAt(x, y) {
    if (!this.mask) return null;
    const pixel = new OffscreenCanvas(1, 1).getContext("2d");
    const [across, down] = [this.mask.naturalWidth, this.mask.naturalHeight];
    pixel.imageSmoothingEnabled = false;
    pixel.globalCompositeOperation = "copy";
    const left = Math.floor((x * across) / this.canvas.width);
    const top = Math.floor((y * down) / this.canvas.height);
    pixel.drawImage(this.mask, left, top, 1, 1, 0, 0, 1, 1);
    const [red, green, blue, alpha] = pixel.getImageData(0, 0, 1, 1).data;
    if (!alpha) return null;
    const near = (color) =>
      [red, green, blue].reduce(
        (sum, part, i) => sum + Math.abs(part - parseInt(color.slice(1 + 2 * i, 3 + 2 * i), 16)),
        0,
      );
    // Colors of pictures that are seen through are rounded.
    return this.colors.reduce((a, b) => (near(b) < near(a) ? b : a), this.colors[0] ?? null);
  }

  // Pixels of the frame in one screen pixel.
  get scale() {
    return this.canvas.width / (this.canvas.getBoundingClientRect().width || 1);
  }

  get painting() {
    return this.tool === "brush" || this.tool === "eraser";
  }

  draw() {
    const { pen, canvas } = this;
    pen.clearRect(0, 0, canvas.width, canvas.height);
    for (const picture of [this.frame, this.mask]) {
      if (picture) pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
    }
    for (const gesture of [this.left, this.gesture]) if (gesture) this.#drawGesture(gesture);
    if (this.painting && this.hover) this.#drawRing(this.hover);
  }

  #drawRing([x, y]) {
    const { pen } = this;
    for (const [color, more] of [["#000a", 1], ["#fff", 0]]) {
      pen.beginPath();
      pen.arc(x, y, (this.radius + more) * this.scale, 0, 7);
      pen.lineWidth = this.scale;
      pen.strokeStyle = color;
      pen.stroke();
    }
  }

  #drawGesture({ kind, points, on }) {
    const { pen, scale } = this;
    const [first, last] = [points[0], points.at(-1)];
    if (kind === "stroke") {
      pen.globalAlpha = 0.6;
      pen.strokeStyle = on ? this.color : "#d33";
      pen.lineWidth = 2 * this.radius * scale;
      pen.lineCap = pen.lineJoin = "round";
      pen.beginPath();
      pen.moveTo(...first);
      for (const point of points) pen.lineTo(...point);
      pen.stroke();
      pen.globalAlpha = 1;
    } else if (kind === "box") {
      pen.lineWidth = 2 * scale;
      pen.strokeStyle = this.color;
      pen.setLineDash([6 * scale, 4 * scale]);
      pen.strokeRect(first[0], first[1], last[0] - first[0], last[1] - first[1]);
      pen.setLineDash([]);
    } else {
      for (const [color, size] of [["#fff", 7], [on ? "#1fa548" : "#d33", 5]]) {
        pen.beginPath();
        pen.arc(first[0], first[1], size * scale, 0, 7);
        pen.fillStyle = color;
        pen.fill();
      }
    }
  }

  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) * this.canvas.width) / box.width,
      ((event.clientY - box.top) * this.canvas.height) / box.height,
    ];
  }

  #down(event) {
    if (!this.frame || (event.button !== 0 && event.button !== 2)) return;
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    const off = this.tool === "off" || this.tool === "eraser" || event.button === 2;
    const kind = this.painting ? "stroke" : "click";
    this.gesture = { kind, points: [this.#place(event)], on: !off, start: event };
    this.draw();
  }

  #move(event) {
    this.hover = this.#place(event);
    if (this.gesture) {
      const { start, points } = this.gesture;
      const far = Math.hypot(event.clientX - start.clientX, event.clientY - start.clientY) > DRAG;
      if (this.gesture.kind === "click" && far && this.gesture.on) this.gesture.kind = "box";
      if (this.gesture.kind !== "click" && points.length < 9000) points.push(this.hover);
    }
    if (this.gesture || this.painting) this.draw();
  }

  #up(event) {
    const { gesture } = this;
    if (!gesture) return;
    if (gesture.kind === "box") gesture.points.push(this.#place(event));
    this.#end();
    this.left = gesture;
    this.draw();
    this.onMark(this.#asMark(gesture));
  }

  #end() {
    this.gesture = null;
    this.draw();
  }

  #asMark({ kind, points, on }) {
    const [first, last] = [points[0], points.at(-1)];
    if (kind === "click") {
      const x = Math.min(Math.max(first[0], 0), this.canvas.width - 1);
      const y = Math.min(Math.max(first[1], 0), this.canvas.height - 1);
      return { kind, x, y, on };
    }
    if (kind === "stroke") {
      return { kind, points, on, radius: Math.max(this.radius * this.scale, 0.5), snap: this.snap };
    }
    const [left, right] = [first[0], last[0]].sort((a, b) => a - b);
    const [top, bottom] = [first[1], last[1]].sort((a, b) => a - b);
    const room = 0.01; // a box has an area
    return { kind, x: left, y: top, width: right - left + room, height: bottom - top + room };
  }
}

// Load a picture; resolves to null if it cannot be had.
export async function picture(url) {
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
    return image;
  } catch {
    return null;
  }
}
