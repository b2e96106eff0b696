// Findings: the level as a word and a color, what was seen, why it matters, what to do.

const SHOWN_EVIDENCE = 6;

/** Findings in the order they are in; passed checks are folded away. */
function findingList(findings) {
  const loud = findings.filter((one) => one.level !== "ok");
  const well = findings.filter((one) => one.level === "ok");
  const folded = make("details", { open: loud.every((one) => one.level === "note") }, make("summary", {}, `${well.length} checks passed`), ...well.map(drawFinding));
  return make("div", { class: "findings" }, ...loud.map(drawFinding), well.length ? folded : null);
}

function drawFinding(one) {
  const parts = [
    make("h3", {}, make("span", { class: "level" }, one.level), ` ${one.check}`),
    make("p", {}, one.seen),
    one.why ? make("p", { class: "note" }, one.why) : null,
    one.remedy ? make("p", { class: "remedy" }, make("strong", {}, "Do: "), ...withCode(one.remedy)) : null,
    evidence(one.evidence),
    one.picture ? make("img", { src: one.picture, alt: `${one.check}: ${one.seen}`, class: "proof" }) : null,
  ];
  return make("article", { class: `finding is-${one.level}` }, ...parts);
}

/** Settings (key=value) and commands in backquotes, as code that can be copied. */
function withCode(text) {
  return text.split(/(`[^`]*`|\b(?:data|model|train)\.\w+="[^"]*"|\b(?:data|model|train)\.\w+=[\w.:-]+(?:\([^)]*\))?)/).map((part, index) => (index % 2 ? make("code", {}, part.replaceAll("`", "")) : part));
}

function evidence(lines) {
  if (!lines.length) return null;
  const item = (line) => make("li", {}, line);
  const first = make("ul", { class: "evidence" }, ...lines.slice(0, SHOWN_EVIDENCE).map(item));
  if (lines.length <= SHOWN_EVIDENCE) return first;
  const rest = make("ul", { class: "evidence" }, ...lines.slice(SHOWN_EVIDENCE).map(item));
  return make("div", {}, first, make("details", {}, make("summary", {}, `${lines.length - SHOWN_EVIDENCE} more`), rest));
}

/** The findings of each run of a report. */
function drawDoctor(data) {
  for (const run of data.runs) {
    if (data.runs.length > 1) byId("doctor").append(make("h3", {}, run.title));
    byId("doctor").append(findingList(run.findings));
  }
}
