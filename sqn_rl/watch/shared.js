// What the pages of a run and of a folder have in common. Fetches data.json every few seconds.
"use strict";

const EVERY = 2000;  // milliseconds

const by_id = (name) => document.getElementById(name);

function make(name, attributes = {}, ...children) {
  const svg = ["svg", "path", "circle", "line", "text", "g"].includes(name);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// --- numbers

function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(4)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(4)}k`;
  return size > 0 && size < 1e-3 ? value.toExponential(1) : `${+value.toPrecision(4)}`;
}

const steps = (value) => value < 1e3 ? `${value}` : value < 1e6 ? `${value / 1e3}k` : `${value / 1e6}M`;
const whole = (value) => Math.round(value).toLocaleString("en");

const mean_and_std = ({mean, std, episodes}) =>
  mean.toFixed(1) + (episodes > 1 ? ` ± ${std.toFixed(1)}` : "");

// --- the page

const STATUS = {
  running: "running", done: "done", stopped: "stopped", killed: "killed, or never started",
  numerics: "stopped: a number was not finite", error: "failed",
  model: "a model of sqn-push",
};

let answered = null;

// Calls `update` with the state whenever it has changed.
async function look(update) {
  try {
    const answer = await fetch("data.json");
    if (!answer.ok) throw new Error(await answer.text());
    const text = await answer.text();
    if (text !== answered) {
      update(JSON.parse(text));
      answered = text;
    }
  } catch (error) {
    by_id("status").textContent = error instanceof TypeError ? "sqn-watch has ended" : error.message;
    by_id("status").className = "gone";
    answered = null;
  }
  setTimeout(look, EVERY, update);
}
