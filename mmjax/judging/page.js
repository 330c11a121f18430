"use strict";
const facts = JSON.parse(document.body.dataset.facts);
const $ = (id) => document.getElementById(id);
const sides = ["left", "right"];
let csrf = facts.csrf, state = null, waiting = false, since = 0, drawn = 0;
document.body.classList.toggle("pixelated", facts.pixelated);

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function say(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

// An answer is asked again until the server has it: the same one counts once.
async function ask(path, body) {
  for (let pause = 500; ; pause = Math.min(2 * pause, 8000)) {
    let reply = null;
    try {
      reply = await fetch(path, body === undefined ? {} : {
        method: "POST", body: JSON.stringify(body),
        headers: {"Content-Type": "application/json", "X-CSRF-Token": csrf}});
    } catch (error) {
      reply = null;
    }
    if (reply && reply.status < 500) {
      say("");
      const values = await reply.json();
      if (reply.status === 409 && path === "/vote") return ask("/state");
      if (!reply.ok) throw new Error(values.error);
      return values;
    }
    say("The connection is lost. Trying again; your answers are safe.");
    await sleep(pause);
  }
}

function load(image, source) {
  return new Promise((resolve) => {
    image.onload = image.onerror = resolve;
    image.src = source;
  });
}

async function show(next) {
  state = next;
  $("start").hidden = true;
  $("done").hidden = !state.done;
  $("pair").hidden = state.done;
  $("undo").disabled = $("undo-last").disabled = !state.undo;
  const share = 100 * (state.about ? state.finished / state.about : 1);
  $("bar").style.width = `${share}%`;
  $("progress").setAttribute("aria-valuenow", Math.round(share));
  $("count").textContent = state.done ? `${state.finished} pairs`
    : `Pair ${state.finished + 1} of about ${Math.max(state.about, state.finished + 1)}`;
  if (state.done) return;
  const asked = Object.keys(facts.asked), step = asked.indexOf(state.question);
  $("question").textContent = facts.asked[state.question];
  $("caption").textContent = state.prompt;
  $("pair").classList.toggle("match", state.question === "match");
  document.querySelectorAll(".steps li").forEach(
    (mark, n) => mark.classList.toggle("on", n <= step));
  if (drawn !== state.number) {
    await Promise.all(sides.map(
      (side) => load($(`${side}-image`), `/image/${state.number}/${side}`)));
    drawn = state.number;
  }
  since = performance.now();
}

async function busy(work) {
  if (waiting) return;
  waiting = true;
  document.body.classList.add("waiting");
  try {
    await work();
  } catch (error) {
    say(error.message);
  }
  sides.forEach((side) => $(side).classList.remove("chosen"));
  document.body.classList.remove("waiting");
  waiting = false;
}

function choose(side) {
  if (!state || state.done || waiting) return;
  const seconds = (performance.now() - since) / 1000;
  const vote = {number: state.number, question: state.question, side, seconds};
  $(side).classList.add("chosen");
  busy(async () => {
    const [next] = await Promise.all([ask("/vote", vote), sleep(120)]);
    await show(next);
  });
}

function undo() {
  if (state && state.undo) busy(async () => show(await ask("/undo", {})));
}

function begin() {
  busy(async () => {
    const next = await ask("/begin", {});
    csrf = next.csrf;
    await show(next);
  });
}

sides.forEach((side) => { $(side).onclick = () => choose(side); });
$("undo").onclick = $("undo-last").onclick = undo;
$("begin").onclick = begin;
document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const act = {ArrowLeft: () => choose("left"), ArrowRight: () => choose("right"),
    u: undo, U: undo, Backspace: undo}[event.key];
  if (act) { event.preventDefault(); act(); }
});
if (csrf) busy(async () => show(await ask("/state"))); else $("start").hidden = false;
