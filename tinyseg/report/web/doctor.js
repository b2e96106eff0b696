// The page of a diagnosis.

const diagnosis = JSON.parse(byId("data").textContent);
document.title = `tinyseg doctor: ${diagnosis.source}`;
byId("top").append(
  make("h1", {}, diagnosis.source),
  make("p", { class: `verdict is-${diagnosis.level}` }, diagnosis.verdict),
  make("p", {}, Object.entries(diagnosis.seconds).map(([stage, seconds]) => `${stage} ${seconds.toFixed(1)} s`).join(", ")),
);
byId("doctor").append(findingList(diagnosis.findings));
