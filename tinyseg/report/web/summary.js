// Scores beside baselines, curves, and how the settings of the runs differ.

const SCORES = ["Dice", "IoU", "Dice", "IoU", "Dice (empty = 1)", "HD 95"];

function drawTop(data) {
  document.title = `tinyseg: ${data.runs.map((run) => run.title).join(", ")}`;
  const trainedOn = { all: ", including images that a run was trained on", train: ", the images that it was trained on" };
  const subtitle = `${data.scored} images of ${data.source} (${data.split}${trainedOn[data.split] ?? ""})`;
  byId("top").append(make("h1", {}, data.runs.map((run) => run.title).join(" and ")), make("p", {}, subtitle));
}

function drawSummary(data) {
  const heads = SCORES.map((text) => make("th", { scope: "col" }, text));
  const groups = make(
    "tr",
    {},
    make("td", {}),
    make("th", { scope: "colgroup", colspan: 2 }, "pixels pooled"),
    make("th", { scope: "colgroup", colspan: 4 }, "mean over images"),
  );
  const best = SCORES.map((_, column) => bestOf(data, column));
  const rows = [
    ...data.runs.map((run) => scoreRow(run.title, run.summary, best, "run")),
    ...data.baselines.map((one) => scoreRow(one.rule, one.summary, best, "baseline")),
  ];
  const table = make(
    "table",
    { class: "scores" },
    make("thead", {}, groups, make("tr", {}, make("th", { scope: "col" }, "method"), ...heads)),
    make("tbody", {}, ...rows),
  );
  byId("summary").append(scrollable("Scores of runs and baselines", table), ...remarks(data));
}

function bestOf(data, column) {
  const rows = [...data.runs, ...data.baselines].map((one) => one.summary[column]);
  const there = rows.filter((value) => value !== null);
  return column === 5 ? Math.min(...there) : Math.max(...there);
}

function scoreRow(title, values, best, rowClass) {
  const cells = values.map((value, column) => {
    const digits = column === 5 ? 2 : 4;
    return make("td", { class: value !== null && value === best[column] ? "best" : false }, fixed(value, digits));
  });
  return make("tr", { class: rowClass }, make("th", { scope: "row" }, title), ...cells);
}

function remarks(data) {
  const baseline = Math.max(...data.baselines.map((one) => one.summary[0] ?? 0));
  const losing = data.runs.filter((run) => (run.summary[0] ?? 0) <= baseline);
  const lines = losing.map((run) => make("p", { class: "warning" }, `${run.title} does not beat the best trivial baseline.`));
  const several = data.classes.length > 2 ? " Scores are means over the foreground classes." : "";
  const explanation =
    "Bold is best. The lower rows are trivial baselines. Means over images leave out images in which neither label nor " +
    "prediction has foreground; “Dice (empty = 1)” counts them as 1. HD 95, the 95th percentile of the Hausdorff distance, is " +
    "in pixels; images without a prediction have none.";
  const gains = data.runs.filter((run) => run.threshold_gain).map((run) => `${data.runs.length > 1 ? `${run.title}: ` : ""}${run.threshold_gain}.`);
  return [...lines, ...[...gains, explanation + several].map((text) => make("p", { class: "note" }, text))];
}

// Curves

function drawCurves(data) {
  const holder = make("div", { class: "charts" });
  const draw = (classId) => holder.replaceChildren(...training(data), ...thresholdCharts(data, classId));
  const options = data.classes.slice(1).map((name, index) => [index + 1, name]);
  const picker = options.length > 1 ? select("Class", options, (value) => draw(Number(value))) : null;
  const note = "Precision, recall, Dice and calibration are computed over the pixels of all images, at their original size.";
  byId("curves").append(...[picker, holder, make("p", { class: "note" }, note)].filter(Boolean));
  draw(1);
}

function training(data) {
  const runs = data.runs.filter((run) => run.history.length > 0);
  if (runs.length === 0) return [];
  const last = Math.max(...runs.flatMap((run) => run.history.map((one) => one.epoch)));
  const x = { label: "epoch", low: 1, high: Math.max(2, last) };
  const of = (run, key) => run.history.map((one) => [one.epoch, one[key]]);
  const several = data.runs.length > 1;
  const named = (run, what) => (several ? `${run.title}: ${what}` : what);
  const lines = (keys) =>
    data.runs.flatMap((run, index) =>
      keys.map(([key, what, dash]) => ({ name: named(run, what), style: `s${index % 6} ${dash}`, points: of(run, key) })),
    );
  const loss = lines([["loss", "training", ""]]);
  const top = Math.max(...loss.flatMap((one) => one.points.map(([, value]) => value ?? 0)));
  const dice = [["train_dice", "training", "dashed"], ["val_dice", "validation", ""]];
  return [
    chart({ title: "Loss", about: "Mean over the training batches of each epoch.", x, y: { label: "loss", low: 0, high: top || 1 }, series: loss }),
    chart({ title: "Dice", about: "Over all pixels of an epoch: validation images as a whole, training images as augmented.", x, y: { label: "Dice", low: 0, high: 1 }, series: lines(dice) }),
  ];
}

function thresholdCharts(data, classId) {
  const curvesOf = (run) => run.curves[classId - 1];
  const style = (index) => `s${index % 6}`;
  const at = (run) => (run.softmax ? 128 : run.level) - 1;
  const lines = (points) => data.runs.map((run, index) => ({ name: run.title, style: style(index), points: points(curvesOf(run)) }));
  const marks = (point) =>
    data.runs
      .map((run, index) => ({ style: style(index), point: point(curvesOf(run), at(run)) }))
      .filter(({ point: [x, y] }) => x !== null && y !== null);
  const unit = (label) => ({ label, low: 0, high: 1 });
  const own = data.runs[0].softmax ? "the dot is 0.5" : "the dot is the run's threshold";
  const each = (key) => data.runs.map((run) => fixed(curvesOf(run)[key], 3)).join(", ");
  return [
    chart({
      title: "Precision and recall",
      about: `Over all thresholds; ${own}. Average precision ${each("average_precision")}.`,
      x: unit("recall"), y: unit("precision"),
      series: lines((c) => c.recall.map((recall, k) => [recall ?? 0, recall === null ? null : c.precision[k]])),
      marks: marks((c, k) => [c.recall[k], c.precision[k]]),
    }),
    chart({
      title: "Dice by threshold",
      about: `Over all pixels; ${own}. Highest at ${each("threshold")} on these images.`,
      x: unit("threshold"), y: unit("Dice"),
      series: lines((c) => c.dice.map((dice, k) => [(k + 1) / 256, dice])),
      marks: marks((c, k) => [(k + 1) / 256, c.dice[k]]),
    }),
    chart({
      title: "Calibration",
      about: `Of the pixels predicted with probability 0.8, 8 of 10 should be the class (the diagonal). Expected calibration error ${each("calibration_error")}.`,
      x: unit("probability"), y: unit("fraction of pixels of the class"),
      series: lines((c) => c.reliability.map(([mean, share]) => [mean, share])),
      diagonal: true,
    }),
  ];
}

// Settings

function drawSettings(data) {
  const section = byId("settings");
  const { rows, with_defaults: alone } = data.settings;
  const columns = [...data.runs.map((run) => run.title), ...(alone ? ["default"] : [])];
  const heads = ["setting", ...columns].map((text) => make("th", { scope: "col", class: "text" }, text));
  const body = rows.map(([key, ...values]) =>
    make("tr", {}, make("th", { scope: "row" }, key), ...values.map((value) => make("td", { class: "text" }, value || "(empty)"))),
  );
  const table = make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...body));
  const some = alone ? "Settings that differ from the defaults." : "Settings that differ between the runs.";
  const none = alone ? "All settings are the defaults." : "The runs have the same settings.";
  section.append(make("p", {}, rows.length ? some : none));
  if (rows.length) section.append(scrollable("Settings", table));
  if (data.parting) section.append(make("p", {}, partingText(data.parting)));
  section.append(make("ul", { class: "plain" }, ...data.runs.map(runLine)));
}

function partingText({ epoch, shared }) {
  if (!shared) return "The runs have no epoch in common.";
  if (epoch === null) return `The loss and the scores of all ${shared} common epochs are identical.`;
  return `The runs differ from epoch ${epoch} on: the first whose loss or scores are not identical.`;
}

function runLine(run) {
  const epochs = run.history.length;
  return make("li", {}, `${run.title}: ${run.folder}, ${run.trained} training images, ${epochs} epochs, ${run.device}, started ${run.started}`);
}
