// Line charts as SVG, each with its numbers as a table.

const CHART = { width: 380, height: 260, left: 48, right: 12, top: 12, bottom: 42 };

/**
 * A figure. series: [{name, style, points: [[x, y], ...]}]; a point with y null breaks the line.
 * marks: [{style, point}]. x and y: {label, low, high}.
 */
function chart({ title, about, x, y, series, marks = [], diagonal = false }) {
  const lines = series.filter((one) => one.points.some(([, value]) => value !== null));
  const toX = scale(x, CHART.left, CHART.width - CHART.right);
  const toY = scale(y, CHART.height - CHART.bottom, CHART.top);
  const svg = makeSvg(
    "svg",
    { viewBox: `0 0 ${CHART.width} ${CHART.height}`, role: "img", "aria-label": `${title}. ${about}` },
    ...axis(x, y, toX, toY),
    diagonal ? line([[x.low, y.low], [x.high, y.high]], toX, toY, "diagonal") : null,
    ...lines.map((one) => line(one.points, toX, toY, one.style)),
    ...marks.map(({ style, point }) => dot(point, toX, toY, style)),
  );
  const legend = lines.length > 1 ? make("ul", { class: "legend" }, ...lines.map(legendItem)) : null;
  const caption = make("figcaption", {}, make("strong", {}, title), ` ${about}`);
  return make("figure", {}, caption, svg, legend, numbers(title, x, y, lines));
}

function scale({ low, high }, from, to) {
  const width = high - low || 1;
  return (value) => from + ((value - low) / width) * (to - from);
}

/** About four round numbers from low to high. */
function ticks({ low, high }) {
  const raw = (high - low || 1) / 4;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((k) => k * power).find((k) => k >= raw * 0.99);
  const first = Math.ceil(low / step - 1e-9);
  return range(Math.floor(high / step + 1e-9) - first + 1).map((k) => (first + k) * step);
}

const short = (value) => String(Number(value.toPrecision(3)));

function axis(x, y, toX, toY) {
  const { width, height, left, right, bottom, top } = CHART;
  const floor = height - bottom;
  const across = ticks(y).flatMap((value) => [
    makeSvg("line", { class: "grid", x1: left, x2: width - right, y1: toY(value), y2: toY(value) }),
    makeSvg("text", { x: left - 6, y: toY(value) + 4, "text-anchor": "end" }, short(value)),
  ]);
  const down = ticks(x).map((value) =>
    makeSvg("text", { x: toX(value), y: floor + 16, "text-anchor": "middle" }, short(value)),
  );
  const middle = (top + floor) / 2;
  return [
    ...across,
    ...down,
    makeSvg("line", { class: "axis", x1: left, x2: width - right, y1: floor, y2: floor }),
    makeSvg("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, x.label),
    makeSvg("text", { transform: `translate(12 ${middle}) rotate(-90)`, "text-anchor": "middle" }, y.label),
  ];
}

function line(points, toX, toY, style) {
  let path = "";
  let open = false;
  for (const [x, y] of points) {
    if (y !== null) path += `${open ? "L" : "M"}${toX(x).toFixed(1)} ${toY(y).toFixed(1)}`;
    open = y !== null;
  }
  return makeSvg("path", { class: `line ${style}`, d: path });
}

function dot([x, y], toX, toY, style) {
  return makeSvg("circle", { class: `dot ${style}`, cx: toX(x), cy: toY(y), r: 5 });
}

function legendItem({ name, style }) {
  const key = makeSvg("svg", { viewBox: "0 0 28 8", class: "key", "aria-hidden": "true" });
  key.append(makeSvg("path", { class: `line ${style}`, d: "M1 4L27 4" }));
  return make("li", {}, key, ` ${name}`);
}

/** The same numbers as a table; at most 26 rows of a long line. */
function numbers(title, x, y, lines) {
  const rows = lines.flatMap(({ name, points }) => {
    const each = Math.max(1, Math.ceil(points.length / 26));
    const some = points.filter((_, index) => index % each === 0 || index === points.length - 1);
    return some.map(([at, value]) =>
      make("tr", {}, make("th", { scope: "row" }, name), cell(at, 3), cell(value, 4)),
    );
  });
  const head = ["line", x.label, y.label].map((text) => make("th", { scope: "col" }, text));
  const table = make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
  return make("details", {}, make("summary", {}, "Numbers"), scrollable(`Numbers of ${title}`, table));
}

const cell = (value, digits) =>
  make("td", {}, value !== null && Number.isInteger(value) ? String(value) : fixed(value, digits));
