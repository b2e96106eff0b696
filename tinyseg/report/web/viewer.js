// One image: image, label, and for each run its probability, its prediction and a threshold.

const IGNORE = 255;
const MAX_ZOOM = 32;

/** The maps of an image, unpacked: {label, runs: [{probability: [...], prediction}]}. */
async function mapsOf(image) {
  const [rows, columns] = image.size;
  const open = (text) => unpack(text, rows, columns);
  const label = await open(image.label);
  const runs = image.runs.map(async (run) => ({
    probability: await Promise.all(run.probability.map(open)),
    prediction: run.prediction ? await open(run.prediction) : null,
  }));
  return { label, runs: await Promise.all(runs) };
}

/** Counts true positives, false positives and false negatives of `inside(pixel)` for class `classId`, without ignored pixels. */
function outcomes(label, classId, inside) {
  const count = { tp: 0, fp: 0, fn: 0 };
  for (let at = 0; at < label.length; at++) {
    if (label[at] === IGNORE) continue;
    const own = label[at] === classId;
    const said = inside(at);
    if (own && said) count.tp++;
    else if (said) count.fp++;
    else if (own) count.fn++;
  }
  return count;
}

function diceOf({ tp, fp, fn }) {
  const whole = 2 * tp + fp + fn;
  return whole ? (2 * tp) / whole : null;
}

/** Mean Dice of the foreground classes that are there. */
function meanDice(label, prediction, classes) {
  const each = range(classes - 1).map((k) => diceOf(outcomes(label, k + 1, (at) => prediction[at] === k + 1)));
  const there = each.filter((value) => value !== null);
  return there.length ? there.reduce((sum, value) => sum + value, 0) / there.length : null;
}

/** Draws RGBA of each pixel: color(at) gives [r, g, b] or [r, g, b, a]. */
function paint(canvas, [rows, columns], color) {
  canvas.width = columns;
  canvas.height = rows;
  const pixels = new ImageData(columns, rows);
  for (let at = 0; at < rows * columns; at++) {
    const [r, g, b, a = 255] = color(at);
    pixels.data.set([r, g, b, a], 4 * at);
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

/** A titled picture that zooms and moves with the others. */
class Pane {
  constructor(title, view) {
    this.picture = make("img", { alt: "", draggable: "false" });
    this.canvas = make("canvas", { "aria-hidden": "true" });
    this.stage = make("div", { class: "stage" }, this.picture, this.canvas);
    this.frame = make("div", { class: "frame", role: "img" }, this.stage);
    this.title = make("figcaption", {}, title);
    this.element = make("figure", { class: "pane" }, this.title, this.frame);
    view.add(this);
  }

  show(image, about, color) {
    this.frame.style.aspectRatio = `${image.size[1]} / ${image.size[0]}`;
    this.frame.setAttribute("aria-label", `${this.title.textContent} of ${image.name}${about}`);
    this.picture.src = image.image;
    if (color) paint(this.canvas, image.size, color);
  }
}

/** What part of the pictures is seen, the same in all panes: scale, and offset in frames. */
class View {
  constructor() {
    this.panes = [];
    this.reset();
  }

  add(pane) {
    this.panes.push(pane);
    const pointers = new Map();
    const at = (event) => {
      const box = pane.frame.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    const frame = pane.frame;
    frame.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 200), at(event));
    }, { passive: false });
    frame.addEventListener("dblclick", (event) => this.zoom(2, at(event)));
    frame.addEventListener("pointerdown", (event) => {
      pointers.set(event.pointerId, at(event));
      frame.setPointerCapture(event.pointerId);
    });
    for (const end of ["pointerup", "pointercancel"])
      frame.addEventListener(end, (event) => pointers.delete(event.pointerId));
    frame.addEventListener("pointermove", (event) => {
      if (!pointers.has(event.pointerId)) return;
      const before = [...pointers.values()];
      pointers.set(event.pointerId, at(event));
      this.follow(before, [...pointers.values()]);
    });
  }

  /** Moves with one pointer, zooms with two. */
  follow(before, after) {
    const middle = (points) => [0, 1].map((k) => points.reduce((sum, p) => sum + p[k], 0) / points.length);
    const [from, to] = [middle(before), middle(after)];
    this.move(to[0] - from[0], to[1] - from[1]);
    if (before.length < 2) return;
    const gap = ([a, b]) => Math.hypot(a[0] - b[0], a[1] - b[1]) || 1e-6;
    this.zoom(gap(after) / gap(before), to);
  }

  zoom(factor, [x, y] = [0.5, 0.5]) {
    const scale = Math.min(MAX_ZOOM, Math.max(1, this.scale * factor));
    this.x = x - ((x - this.x) * scale) / this.scale;
    this.y = y - ((y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.apply();
  }

  move(x, y) {
    this.x += x;
    this.y += y;
    this.apply();
  }

  reset() {
    [this.scale, this.x, this.y] = [1, 0, 0];
    this.apply();
  }

  apply() {
    this.x = Math.min(0, Math.max(1 - this.scale, this.x));
    this.y = Math.min(0, Math.max(1 - this.scale, this.y));
    for (const { stage, frame } of this.panes) {
      stage.style.transform = `translate(${100 * this.x}%, ${100 * this.y}%) scale(${this.scale})`;
      frame.classList.toggle("zoomed", this.scale > 1);
    }
  }
}

/** A run's half of the viewer: two pictures, a slider, the score at its threshold. */
class RunView {
  constructor(run, index, data, view) {
    Object.assign(this, { run, index, data });
    const name = data.runs.length > 1 ? ` of ${run.title}` : "";
    this.probability = new Pane("probability", view);
    this.prediction = new Pane("prediction", view);
    this.slider = make("input", {
      type: "range", min: 1, max: 255, step: 1, "aria-label": `Threshold${name}`, oninput: () => this.draw(),
    });
    this.level = run.level;
    this.said = make("output", { class: "threshold" });
    this.dice = make("output", { class: "dice", "aria-label": `Dice${name}` });
    this.rest = make("span", { class: "rest" });
    const reset = make("button", { type: "button", onclick: () => this.reset() }, "Reset");
    reset.setAttribute("aria-label", `Threshold${name} as trained`);
    const label = make("label", { class: "field grow" }, "Threshold ", this.slider, this.said);
    const title = data.runs.length > 1 ? make("h3", {}, run.title) : null;
    this.element = make(
      "div",
      { class: "of-run" },
      title,
      make("div", { class: "panes" }, this.probability.element, this.prediction.element),
      make("div", { class: "controls" }, label, reset),
      make("p", { class: "score" }, "Dice ", this.dice, this.rest),
    );
  }

  set level(value) {
    this.slider.value = value;
  }

  get level() {
    return Number(this.slider.value);
  }

  reset() {
    this.level = this.softmax ? 128 : this.run.level;
    this.draw();
  }

  get softmax() {
    return this.run.softmax;
  }

  show(image, maps, classId) {
    const changed = this.classId !== undefined && this.classId !== classId;
    Object.assign(this, { image, maps, classId, own: maps.runs[this.index] });
    if (changed && this.softmax) this.level = 128;
    this.draw();
  }

  draw() {
    if (!this.image) return;
    const all = this.classId < 0;
    this.slider.disabled = all;
    this.said.textContent = all ? "most probable" : (this.level / 256).toFixed(3);
    if (all) this.drawClasses();
    else this.drawOutcomes();
  }

  drawClasses() {
    const { image, data, own, maps } = this;
    const sure = (at) => own.probability.reduce((most, map) => Math.max(most, map[at]), 0);
    this.probability.show(image, ": of the most probable class", (at) => data.probability[sure(at)]);
    this.prediction.show(image, "", (at) => data.colors[own.prediction[at]]);
    this.tell(meanDice(maps.label, own.prediction, data.classes.length), null);
  }

  drawOutcomes() {
    const { image, data, classId, maps, level } = this;
    const map = this.own.probability[this.softmax ? classId : 0];
    const inside = (at) => map[at] >= level;
    const { tp, fp, fn } = data.outcomes;
    const clear = [0, 0, 0, 0];
    this.probability.show(image, "", (at) => data.probability[map[at]]);
    this.prediction.show(image, ": true positives, false positives and false negatives", (at) => {
      const label = maps.label[at];
      if (label === IGNORE) return [128, 128, 128, 90];
      if (label === classId) return [...(inside(at) ? tp : fn), 170];
      return inside(at) ? [...fp, 170] : clear;
    });
    const curve = this.run.curves[classId - 1]; // a softmax head has none for class 0
    this.tell(diceOf(outcomes(maps.label, classId, inside)), curve ? curve.dice[level - 1] : null);
  }

  tell(dice, pooled) {
    this.dice.textContent = dice === null ? "undefined (no foreground in label or prediction)" : dice.toFixed(4);
    this.rest.textContent = pooled === null ? "" : ` · all images pooled ${pooled.toFixed(4)}`;
  }
}
