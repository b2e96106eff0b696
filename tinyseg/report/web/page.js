// The page: the table of images beside the viewer.

const METRICS = [
  ["dice", "Dice", 4], ["iou", "IoU", 4], ["precision", "precision", 4], ["recall", "recall", 4],
  ["hd95", "HD 95", 2], ["assd", "ASSD", 2], ["area", "predicted", "%"],
];

const valueOf = (part, key) => (key === "area" ? part.area : part.scores[key]);
const written = (value, digits) => (digits === "%" ? percent(value) : fixed(value, digits));

class Images {
  constructor(data) {
    this.data = data;
    this.order = range(data.images.length);
    this.current = 0;
    this.classId = data.classes.length > 2 ? -1 : 1;
    this.view = new View();
    this.metric = "dice";
    this.sorted = { column: 0, down: false };
    this.build();
    this.sort(data.images[0] ? 2 : 0, false);
    this.choose(this.order[0]);
  }

  // The table

  /** [{title, digits, value(image)}] */
  columns() {
    const { runs } = this.data;
    const several = runs.length > 1;
    const first = [
      { title: "image", digits: null, value: (image) => image.name },
      { title: "label", digits: "%", value: (image) => image.foreground },
    ];
    if (!several) {
      return [...first, ...METRICS.map(([key, title, digits]) => ({ title, digits, value: (image) => valueOf(image.runs[0], key) }))];
    }
    const [key, , digits] = METRICS.find(([name]) => name === this.metric);
    const each = runs.map((run, index) => ({ title: run.title, digits, value: (image) => valueOf(image.runs[index], key) }));
    const differ = (image) => {
      const [one, other] = [image.runs[0], image.runs[runs.length - 1]].map((part) => valueOf(part, key));
      return one === null || other === null ? null : other - one;
    };
    return [...first, ...each, { title: "last − first", digits, value: differ }];
  }

  build() {
    const { data } = this;
    this.head = make("tr", {});
    this.body = make("tbody", {});
    this.rows = data.images.map((image, index) => this.row(image, index));
    const table = make("table", { class: "images" }, make("thead", {}, this.head), this.body);
    const options = METRICS.map(([key, title]) => [key, title]);
    const metric = data.runs.length > 1 ? select("Metric", options, (value) => this.measure(value)) : null;
    const list = make("div", { class: "list" }, metric, scrollable("Images and their scores, sorted by the buttons in the heads", table));
    byId("images").append(...this.notes(), make("div", { class: "split" }, list, this.buildViewer()));
  }

  notes() {
    const { data } = this;
    const some = data.images.length < data.scored ? `${data.images.length} of ${data.scored} images, evenly spaced from the worst to the best Dice. ` : "";
    const scope = `${some}Scores in the table are at the original size and the run's threshold. The Dice under a picture is computed from the smaller map in this page (at most ${data.side} pixels a side, 8 bits) at the threshold of the slider. HD 95 (Hausdorff, 95th percentile) and ASSD (average surface distance) are in pixels.`;
    const processed = data.runs
      .filter((run) => run.postprocess)
      .map((run) => ` ${run.title} post-processes its predictions (${run.postprocess}): the scores in the table include it, the maps at a threshold do not.`);
    return [make("p", { class: "note" }, scope + processed.join(""))];
  }

  row(image, index) {
    const thumb = make("img", { class: "thumb", alt: "", loading: "lazy", decoding: "async" });
    thumb.src = image.image;
    const name = make("button", { type: "button", class: "name", onclick: () => this.choose(index) }, image.name);
    return make("tr", { onclick: () => this.choose(index) }, make("th", { scope: "row" }, thumb, name));
  }

  measure(metric) {
    this.metric = metric;
    this.sort(this.sorted.column, this.sorted.down);
  }

  sort(column, down) {
    const columns = this.columns();
    const { value } = columns[column];
    const values = this.data.images.map(value);
    const compare = (a, b) => {
      if (values[a] === null || values[b] === null) return (values[a] === null) - (values[b] === null) || a - b;
      const order = typeof values[a] === "string" ? values[a].localeCompare(values[b], "en", { numeric: true }) : values[a] - values[b];
      return (down ? -order : order) || a - b;
    };
    this.sorted = { column, down };
    this.order.sort(compare);
    this.drawTable(columns);
  }

  drawTable(columns) {
    const { column, down } = this.sorted;
    const focused = [...this.head.children].findIndex((head) => head.contains(document.activeElement));
    const heads = columns.map(({ title }, index) => {
      const chosen = index === column;
      const turn = () => this.sort(index, chosen ? !down : false);
      const sign = make("span", { "aria-hidden": "true" }, chosen ? (down ? " ▼" : " ▲") : "");
      const button = make("button", { type: "button", onclick: turn }, title, sign);
      return make("th", { scope: "col", "aria-sort": chosen ? (down ? "descending" : "ascending") : "none" }, button);
    });
    this.head.replaceChildren(...heads);
    if (focused >= 0) heads[focused].querySelector("button").focus();
    for (const index of this.order) {
      const row = this.rows[index];
      const cells = columns.slice(1).map(({ digits, value }) => make("td", {}, written(value(this.data.images[index]), digits)));
      row.replaceChildren(row.firstChild, ...cells);
    }
    this.body.replaceChildren(...this.order.map((index) => this.rows[index]));
  }

  // The viewer

  buildViewer() {
    const { data, view } = this;
    this.title = make("strong", { class: "title", "aria-live": "polite" });
    this.image = new Pane("image", view);
    this.label = new Pane("label", view);
    this.runs = data.runs.map((run, index) => new RunView(run, index, data, view));
    const button = (text, name, act) => make("button", { type: "button", "aria-label": name, title: name, onclick: act }, text);
    const bar = make(
      "div",
      { class: "controls" },
      button("←", "Previous image", () => this.step(-1)),
      button("→", "Next image", () => this.step(1)),
      this.title,
      button("−", "Zoom out", () => view.zoom(1 / 1.5)),
      button("+", "Zoom in", () => view.zoom(1.5)),
      button("Fit", "Fit the whole image", () => view.reset()),
    );
    this.legend = make("ul", { class: "legend" });
    const help =
      "Drag moves, pinch or Ctrl and wheel zooms. Keys in the viewer: ← → images, [ ] threshold, + − 0 zoom, Shift and arrows move. " +
      "Probabilities are kept in 8 bits, so thresholds are k/256.";
    const panes = make("div", { class: "panes" }, this.image.element, this.label.element);
    const label = { class: "viewer", tabindex: 0, role: "group", "aria-label": "Viewer", onkeydown: (event) => this.key(event) };
    const picker = this.classPicker();
    return make("div", label, bar, picker, panes, ...this.runs.map((run) => run.element), this.legend, make("p", { class: "note" }, help));
  }

  classPicker() {
    const { classes } = this.data;
    if (classes.length < 3) return null;
    const options = [[-1, "all classes"], ...classes.map((name, classId) => [classId, `${name} against the rest`])];
    return select("Class", options, (value) => {
      this.classId = Number(value);
      this.draw();
    });
  }

  step(by) {
    const place = this.order.indexOf(this.current) + by;
    if (place >= 0 && place < this.order.length) this.choose(this.order[place]);
  }

  async choose(index) {
    if (index === undefined) return;
    this.current = index;
    for (const [at, row] of this.rows.entries()) {
      row.classList.toggle("current", at === index);
      row.querySelector("button").setAttribute("aria-current", at === index);
    }
    this.reveal(this.rows[index]);
    const maps = await mapsOf(this.data.images[index]);
    if (this.current !== index) return; // another was chosen meanwhile
    this.maps = maps;
    this.draw();
  }

  /** Scrolls the table, and never the page, to a row. */
  reveal(row) {
    const box = this.body.closest(".scroll");
    const top = row.offsetTop - box.querySelector("thead").offsetHeight;
    const bottom = row.offsetTop + row.offsetHeight - box.clientHeight;
    if (box.scrollTop > top) box.scrollTop = top;
    else if (box.scrollTop < bottom) box.scrollTop = bottom;
  }

  draw() {
    const image = this.data.images[this.current];
    const { maps, classId, data } = this;
    const [rows, columns] = image.original;
    this.title.textContent = image.name;
    this.title.title = `${image.name}, ${columns} x ${rows} pixels`;
    this.image.show(image, "", null);
    const flat = (at) => (maps.label[at] === IGNORE ? data.colors[IGNORE] : maps.label[at] === classId ? [255, 255, 255] : [0, 0, 0]);
    this.label.show(image, "", classId < 0 ? (at) => data.colors[maps.label[at]] : flat);
    for (const run of this.runs) run.show(image, maps, classId);
    this.drawLegend();
  }

  drawLegend() {
    const { classId, data } = this;
    const entries = classId < 0
      ? data.classes.map((name, index) => [name, data.colors[index]])
      : [["true positive", data.outcomes.tp], ["false positive", data.outcomes.fp], ["false negative", data.outcomes.fn]];
    const items = entries.map(([name, color]) => {
      const key = make("span", { class: "swatch", "aria-hidden": "true" });
      key.style.backgroundColor = `rgb(${color.join(" ")})`;
      return make("li", {}, key, ` ${name}`);
    });
    this.legend.replaceChildren(...items, colorBar(data));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || /SELECT/.test(event.target.tagName)) return;
    const slider = event.target.tagName === "INPUT";
    const { view } = this;
    const moves = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
    const acts = {
      "[": () => this.threshold(-1), "]": () => this.threshold(1),
      "+": () => view.zoom(1.5), "=": () => view.zoom(1.5), "-": () => view.zoom(1 / 1.5), 0: () => view.reset(),
    };
    if (!slider && !event.shiftKey) Object.assign(acts, { ArrowLeft: () => this.step(-1), ArrowRight: () => this.step(1) });
    const act = event.shiftKey && moves[event.key] && !slider ? () => view.move(...moves[event.key]) : acts[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  threshold(by) {
    for (const run of this.runs) {
      if (run.slider.disabled) continue;
      run.level += by;
      run.draw();
    }
  }
}

function colorBar(data) {
  const canvas = make("canvas", { class: "bar", "aria-hidden": "true" });
  paint(canvas, [1, 256], (at) => data.probability[at]);
  return make("li", {}, "0 ", canvas, " 1 probability");
}

const data = JSON.parse(byId("data").textContent);
drawTop(data);
drawSummary(data);
new Images(data);
drawCurves(data);
drawDoctor(data);
drawSettings(data);
