// One picture with the boxes found in it: an image, or what the camera saw last.

import { classColour, drawBoxes } from "./draw.js";

export class View {
  // `title` names the picture; the file, if it comes from one, is shown at once.
  constructor(title, file = null) {
    const template = document.getElementById("view");
    this.figure = template.content.firstElementChild.cloneNode(true);
    this.title = title;
    this.part(".title").textContent = title;
    this.canvas = this.part(".boxes");
    this.source = this.part(file ? "img" : ".frame");
    this.source.hidden = false;
    this.found = null;
    this.drawn = [];
    this.only = -1; // the number of the box under the pointer
    this.listen();
    if (file) {
      this.source.src = URL.createObjectURL(file);
      this.source.onload = () => this.setSize(this.source.naturalWidth, this.source.naturalHeight);
    }
  }

  part(selector) {
    return this.figure.querySelector(selector);
  }

  listen() {
    this.sizes = new ResizeObserver(() => this.draw());
    this.sizes.observe(this.part(".picture"));
    const point = (event) => this.bringOut(this.boxAt(event));
    this.canvas.addEventListener("pointermove", point);
    this.canvas.addEventListener("pointerdown", point);
    this.canvas.addEventListener("pointerleave", ({ pointerType }) => {
      if (pointerType === "mouse") this.bringOut(-1); // a finger leaves with every tap
    });
    this.part("details").addEventListener("toggle", () => this.list());
    this.part(".save").addEventListener("click", () => this.save());
    this.part(".copy").addEventListener("click", () => this.copy());
    this.part(".copy").hidden = !navigator.clipboard; // browsers have none on plain http
    this.part(".enlarge").addEventListener("click", ({ target }) => {
      target.setAttribute("aria-pressed", this.figure.classList.toggle("wide"));
    });
  }

  // The picture is as wide as there is room, but no higher than the screen.
  setSize(width, height) {
    this.part(".picture").style.setProperty("--ratio", width / height);
  }

  // A picture of the camera (ImageBitmap), which is used up.
  showFrame(bitmap) {
    if (this.source.width !== bitmap.width || this.source.height !== bitmap.height) {
      this.source.width = bitmap.width;
      this.source.height = bitmap.height;
      this.setSize(bitmap.width, bitmap.height);
    }
    this.source.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
  }

  // What the detector found, and which of it to show.
  show(found, threshold, hidden) {
    this.found = found;
    this.threshold = threshold;
    // In single precision, as scores are: a score of exactly the threshold is not above it.
    this.drawn = found.boxes.filter((box) => box.score > Math.fround(threshold) && !hidden.has(box.class));
    this.only = -1;
    this.part(".summary").textContent = this.summary();
    this.canvas.setAttribute("aria-label", `${this.title}: ${this.summary()}`);
    this.draw();
    this.list();
  }

  showTimes(text) {
    this.part(".times").textContent = text;
  }

  // "3 boxes: 2 red, 1 blue"
  summary() {
    const counts = new Map();
    const byClass = [...this.drawn].sort((a, b) => a.class - b.class);
    for (const { name } of byClass) counts.set(name, (counts.get(name) ?? 0) + 1);
    if (!counts.size) return "no boxes";
    const total = this.drawn.length === 1 ? "1 box" : `${this.drawn.length} boxes`;
    return `${total}: ${[...counts].map(([name, count]) => `${count} ${name}`).join(", ")}`;
  }

  draw() {
    if (!this.found) return;
    const { clientWidth, clientHeight } = this.canvas;
    this.canvas.width = Math.round(clientWidth * devicePixelRatio);
    this.canvas.height = Math.round(clientHeight * devicePixelRatio);
    const scale = this.canvas.width / this.found.width;
    drawBoxes(this.canvas.getContext("2d"), this.drawn, scale, devicePixelRatio, this.only);
    this.figure.dataset.drawn = JSON.stringify(this.record());
  }

  // What is drawn, as plain data: boxes [left, top, right, bottom] in px of the image.
  record() {
    const { width, height, times } = this.found;
    return { image: this.title, width, height, threshold: this.threshold, boxes: this.drawn, milliseconds: times };
  }

  // The number of the smallest box under the pointer, or -1.
  boxAt({ offsetX, offsetY }) {
    const scale = this.found ? this.canvas.clientWidth / this.found.width : 1;
    const [x, y] = [offsetX / scale, offsetY / scale];
    const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
    let best = -1;
    this.drawn.forEach(({ box }, i) => {
      const under = box[0] <= x && x <= box[2] && box[1] <= y && y <= box[3];
      if (under && (best < 0 || area(box) < area(this.drawn[best].box))) best = i;
    });
    return best;
  }

  bringOut(number) {
    if (number === this.only) return;
    this.only = number;
    this.draw();
  }

  // Fills the table, if it is open.
  list() {
    if (!this.part("details").open) return;
    const rows = this.drawn.map(({ name, class: index, score, box }) => {
      const row = document.createElement("tr");
      for (const text of [name, score.toFixed(3), ...box.map((v) => v.toFixed(1))]) row.insertCell().textContent = text;
      row.firstChild.style.setProperty("--colour", classColour(index));
      return row;
    });
    this.part("tbody").replaceChildren(...rows);
  }

  // The picture with its boxes, at its own size.
  save() {
    if (!this.found) return;
    const { width, height } = this.found;
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d");
    context.drawImage(this.source, 0, 0, width, height);
    drawBoxes(context, this.drawn, 1, Math.max(1, (width + height) / 1400));
    canvas.toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `${this.title.replace(/\.\w+$/, "")}-boxes.jpg`;
      link.click();
      URL.revokeObjectURL(link.href);
    }, "image/jpeg", 0.92);
  }

  async copy() {
    if (!this.found) return;
    const button = this.part(".copy");
    const done = await navigator.clipboard.writeText(JSON.stringify(this.record(), null, 2)).then(
      () => "Copied",
      () => "Copying was refused",
    );
    button.textContent = done;
    setTimeout(() => (button.textContent = "Copy JSON"), 2000);
  }

  remove() {
    this.sizes.disconnect();
    if (this.source.src) URL.revokeObjectURL(this.source.src);
    this.figure.remove();
  }
}
