// The page of a run: draws data.json as SVG, without a library.
"use strict";

const LEFT = 52, RIGHT = 14, TOP = 8, BOTTOM = 34;  // around a chart, pixels

function ticks(low, high, most) {
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const all = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) all.push(k * step);
  return all;
}

function logarithmic_ticks(low, high, most) {
  const all = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
    for (const factor of [1, 2, 5]) all.push(+(factor * 10 ** power).toPrecision(1));
  const within = all.filter((tick) => low <= tick && tick <= high);
  const decades = within.filter((tick) => Number.isInteger(+Math.log10(tick).toFixed(9)));
  const chosen = within.length <= most ? within : decades;
  const every = Math.ceil(chosen.length / most);
  return chosen.length < 2 ? ticks(low, high, most) : chosen.filter((_, number) => number % every === 0);
}

// --- a chart

function heights(chart) {
  const values = chart.series.flatMap(({y, spread}) =>
    y.flatMap((value, i) => value === null ? [] : spread ? [value - spread[i], value + spread[i]] : [value]));
  const usable = chart.scale === "log" ? values.filter((value) => value > 0) : values;
  if (!usable.length) return chart.scale === "log" ? [0.1, 1] : [0, 1];
  let low = usable.reduce((a, b) => Math.min(a, b)), high = usable.reduce((a, b) => Math.max(a, b));
  if (chart.scale === "log") {
    const more = Math.max((high / low) ** 0.05, 1.05);
    return [low / more, high * more];
  }
  if (chart.scale === "zero") return [0, 1.05 * high || 1];
  const more = 0.05 * (high - low) || 0.05 * Math.abs(high) || 1;
  return [low - more, high + more];
}

// Places on the screen for a chart's steps and values; undefined where there is no place.
function places(chart, last, width, height) {
  const [low, high] = heights(chart), right = Math.max(1.02 * last, 10);
  const log = chart.scale === "log", level = log ? Math.log : (value) => value;
  return {
    low, high, right,
    x: (step) => LEFT + (width - LEFT - RIGHT) * step / right,
    y: (value) => value === null || (log && value <= 0) ? undefined
      : TOP + (height - TOP - BOTTOM) * (level(high) - level(value)) / (level(high) - level(low)),
  };
}

function axes(svg, chart, at, width, height) {
  const rows = Math.max(3, Math.round(height / 40)), log = chart.scale === "log";
  for (const tick of log ? logarithmic_ticks(at.low, at.high, rows + 1) : ticks(at.low, at.high, rows)) {
    const y = at.y(tick);
    svg.append(make("line", {class: "grid", x1: LEFT, x2: width - RIGHT, y1: y, y2: y}));
    svg.append(make("text", {x: LEFT - 6, y: y + 4, "text-anchor": "end"}, short(+tick.toPrecision(6))));
  }
  for (const tick of ticks(0, at.right, Math.max(2, Math.round(width / 75)))) {
    const x = at.x(tick);
    svg.append(make("line", {class: "grid", x1: x, x2: x, y1: TOP, y2: height - BOTTOM}));
    svg.append(make("text", {x, y: height - BOTTOM + 14, "text-anchor": "middle"}, steps(tick)));
  }
  svg.append(make("text", {x: (LEFT + width - RIGHT) / 2, y: height - 4, "text-anchor": "middle"}, "environment steps"));
}

function curve(svg, {mark, x, y, spread}, at) {
  const points = x.map((step, i) => [at.x(step), at.y(y[i]), i]).filter((point) => point[1] !== undefined);
  if (mark === "line" || mark === "dashes") {
    let path = "";
    points.forEach(([px, py, i], n) => {
      const joined = n > 0 && points[n - 1][2] === i - 1;
      path += `${joined ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`;
    });
    svg.append(make("path", {class: mark, d: path}));
    if (points.length > 1) return;
  }
  for (const [px, py, i] of points) {
    if (spread) {
      const [up, down] = [y[i] + spread[i], y[i] - spread[i]].map(at.y);
      svg.append(make("path", {class: mark, d: `M${px} ${up}V${down}M${px - 3} ${up}h6M${px - 3} ${down}h6`}));
    }
    svg.append(make("circle", {class: mark, cx: px.toFixed(1), cy: py.toFixed(1), r: mark === "dots" ? 1.6 : 3}));
  }
}

// What a curve is, with its value nearest to a step; the newest where none is pointed at.
function legend(chart, step) {
  return chart.series.map(({label, mark, x, y, spread}) => {
    let i = y.findLastIndex((value) => value !== null);
    if (step !== null) x.forEach((each, n) => { if (y[n] !== null && Math.abs(each - step) < Math.abs(x[i] - step)) i = n; });
    const value = i < 0 ? "–" : short(y[i]) + (spread ? ` ± ${short(spread[i])}` : "");
    return make("li", {class: mark}, `${label} ${value}`);
  });
}

function draw(figure, chart, last) {
  if (!chart.series.length) {
    figure.replaceChildren(make("figcaption", {}, chart.title), make("p", {}, "no episode has ended yet"));
    return;
  }
  const width = Math.max(figure.clientWidth - 24, 200), tall = figure.matches(":first-child") && width > 500;
  const height = tall ? 300 : 190, at = places(chart, last, width, height);
  const svg = make("svg", {role: "img", "aria-label": chart.title, viewBox: `0 0 ${width} ${height}`, height});
  axes(svg, chart, at, width, height);
  for (const series of chart.series) curve(svg, series, at);
  const pointer = make("line", {class: "pointer", y1: TOP, y2: height - BOTTOM, visibility: "hidden"});
  const list = make("ul", {}, ...legend(chart, null));
  svg.append(pointer);
  svg.addEventListener("pointermove", (event) => {
    const share = (event.offsetX - LEFT) / (width - LEFT - RIGHT), x = at.x(share * at.right);
    for (const [key, value] of Object.entries({x1: x, x2: x, visibility: "visible"})) pointer.setAttribute(key, value);
    list.replaceChildren(...legend(chart, share * at.right));
  });
  svg.addEventListener("pointerleave", () => {
    pointer.setAttribute("visibility", "hidden");
    list.replaceChildren(...legend(chart, null));
  });
  figure.replaceChildren(make("figcaption", {}, chart.title, list), svg);
}

// --- the page

let shown = null;  // the state
let filmed = null, drawn = false;  // the steps of the weights in the video, and whether there is a graph

function header(state) {
  document.title = `${state.status}: ${state.title}`;
  by_id("title").textContent = state.title;
  by_id("status").textContent = STATUS[state.status] ?? state.status;
  by_id("status").className = state.status;
  const left = state.status === "running" && state.speed ? (state.budget - state.steps) / state.speed : null;
  const counters = [`${whole(state.steps)} of ${whole(state.budget)} steps`];
  if (state.speed) counters.push(`${whole(state.speed)} steps/s`);
  if (left !== null) counters.push(left < 120 ? `${whole(left)} s left` : `${whole(left / 60)} min left`);
  by_id("counters").textContent = `${counters.join(" · ")} · ${state.path}`;
  by_id("progress").value = state.steps / state.budget;
  const last = state.evaluation;
  by_id("evaluation").textContent = !last ? "not evaluated yet" :
    `evaluation at ${whole(last.env_steps)} steps: ${mean_and_std(last)} ` +
    `(${last.episodes > 1 ? `mean ± std of ${last.episodes}` : "1"} ${last.greedy ? "greedy" : "sampled"} ` +
    `${last.episodes > 1 ? "episodes" : "episode"}` +
    `${last.cut ? `, ${last.cut} of them cut after ${whole(last.longest)} steps` : ""})`;
  const actors = state.actors;
  by_id("actors").textContent = !actors ? "" :
    `${whole(actors.actors_up)} actors, ${whole(actors.restarts)} restarts · acting weights are ` +
    `${whole(actors.lag)} updates old · the learner waits ${(100 * actors.learner_wait).toFixed(0)} % of its time`;
  by_id("notes").textContent = state.notes.length ? `note: ${state.notes.join("; ")}` : "";
  by_id("overrides").textContent = state.overrides.length ? `command line: ${state.overrides.join(" ")}` : "";
}

function charts(state) {
  const section = by_id("charts");
  while (section.childElementCount < state.charts.length) section.append(make("figure"));
  while (section.childElementCount > state.charts.length) section.lastElementChild.remove();
  state.charts.forEach((chart, number) => draw(section.children[number], chart, state.steps));
}

// Loads a picture that the server renders on request, or shows its error. False if there is no answer.
async function picture(figure, address, caption) {
  const [text, image] = [figure.querySelector("figcaption"), figure.querySelector("img")];
  if (!image.src) text.textContent = `${caption}: being made …`;
  const answer = await fetch(address).catch(() => null);
  if (answer?.ok) image.src = address;
  if (answer?.ok) text.textContent = caption;
  else if (!image.src) text.textContent = `${caption}: ${answer ? await answer.text() : "no answer"}`;
  if (!answer) answered = null;  // so that the next look updates the page, which asks for the picture again
  return answer !== null;
}

async function film(state) {
  if (state.checkpoint === null || state.checkpoint === filmed) return;
  filmed = state.checkpoint;
  by_id("film").hidden = false;
  const caption = `the first episode of an evaluation, with the weights after ${whole(filmed)} steps`;
  const name = matchMedia("(prefers-color-scheme: dark)").matches ? "film.dark.gif" : "film.gif";
  if (!await picture(by_id("film"), `${name}?${filmed}`, caption)) filmed = null;  // ask again
}

async function graph() {
  if (drawn) return;
  drawn = true;
  drawn = await picture(by_id("graph"), "graph.svg", "the wiring, and what the recipe changes against sqn");
}

function update(state) {
  header(state);
  charts(state);
  film(state);
  graph();
  shown = state;
}

let resized = null;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(() => { if (shown) charts(shown); }, 150);
});
graph();
by_id("list").hidden = location.pathname === "/";
look(update);
