// The page of a folder: a list of its runs.
"use strict";

const HEADINGS = [...document.querySelectorAll("th")].map((heading) => heading.textContent);

function row(run) {
  const link = make("a", {href: `run/${run.id}/`}, run.path);
  const status = make("span", {class: `status ${run.status}`}, STATUS[run.status] ?? run.status);
  const share = run.budget === null ? whole(run.steps) : `${whole(run.steps)} of ${whole(run.budget)}`;
  const last = run.evaluation;
  const evaluation = last ? `${mean_and_std(last)} at ${steps(last.env_steps)}` : "–";
  const cells = [link, run.problem || run.title, run.env || "–", `${run.seed ?? "–"}`, status, share, evaluation];
  return make("tr", {}, ...cells.map((cell, i) => make("td", {"data-heading": HEADINGS[i]}, cell)));
}

function update(state) {
  const running = state.runs.filter((run) => run.status === "running").length;
  document.title = by_id("title").textContent = state.title;
  const count = `${whole(state.runs.length)} run${state.runs.length === 1 ? "" : "s"}, ${running} running`;
  by_id("status").textContent = state.runs.length ? count : "there is no run in it";
  by_id("status").className = running ? "running" : "";
  by_id("notes").textContent = state.notes.length ? `note: ${state.notes.join("; ")}` : "";
  by_id("runs").hidden = !state.runs.length;
  by_id("runs").tBodies[0].replaceChildren(...state.runs.map(row));
}

look(update);
