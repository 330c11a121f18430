"use strict";
const facts = JSON.parse(document.body.dataset.facts);
const $ = (id) => document.getElementById(id);
const make = (name, values = {}, ...inside) => {
  const node = Object.assign(document.createElement(name), values);
  node.append(...inside);
  return node;
};
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const sharp = (event) => event.target.classList.toggle("pixels",
  Math.max(event.target.naturalWidth, event.target.naturalHeight) <= 128);
const image = (alt, src) => make("img", {alt, onload: sharp, src});
const base64 = (blob) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result.split(",")[1] || "");
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(blob);
});

// A form's input: {node, value()}, value() being what the server reads.
function input(field, id, tool, say) {
  const common = {id, name: field.name};
  if (field.kind === "image") return dropped(field, id, tool, say);
  let node;
  if (field.kind === "choice") {
    node = make("select", common, ...field.choices.map((value) =>
      make("option", {value, textContent: value, selected: value === field.value})));
    return {node, value: () => field.choices[node.selectedIndex]};
  }
  if (field.kind === "check") {
    node = make("input", {...common, type: "checkbox", checked: field.value});
    return {node, value: () => node.checked};
  }
  if (field.kind === "number") {
    node = make("input", {...common, type: "number", step: "any", value: field.value});
    return {node, value: () => node.value === "" ? field.value : Number(node.value)};
  }
  node = make(field.kind === "lines" ? "textarea" : "input",
    {...common, value: field.value, autocomplete: "off"});
  if (field.kind === "lines") node.rows = 3;
  const chips = field.examples.map((text) => make("button", {type: "button",
    className: "chip", textContent: text, onclick: () => { node.value = text; node.focus(); }}));
  return {node, after: chips, value: () => node.value};
}

function dropped(field, id, tool, say) {
  let data = "";
  const file = make("input", {id, type: "file", accept: "image/*", name: field.name});
  const shown = make("span", {className: "hint", textContent: "Drop an image, or choose a file"});
  const clear = make("button", {type: "button", className: "quiet clear", hidden: true,
    textContent: "Take it out", onclick: () => take(null)});
  const node = make("label", {className: "drop", htmlFor: id}, file, shown);
  async function take(blob) {
    say("");
    data = "";
    if (blob && blob.size > facts.limit) {
      say(`${blob.name} has ${Math.round(blob.size / 1e6)} MB, and an upload ` +
        `${facts.limit / 1e6} at most: make it smaller`, true);
      blob = null;
    }
    if (blob) data = await base64(blob);
    const seen = data && image(blob.name || "The example",
      `data:${blob.type};base64,${data}`);
    if (seen) seen.onerror = () => seen.replaceWith(blob.name || "An image");
    shown.replaceChildren(seen || "Drop an image, or choose a file");
    file.value = "";
    clear.hidden = !data;
  }
  file.onchange = () => file.files.length && take(file.files[0]);
  node.ondragover = (event) => { event.preventDefault(); node.classList.add("over"); };
  node.ondragleave = () => node.classList.remove("over");
  node.ondrop = (event) => {
    event.preventDefault();
    node.classList.remove("over");
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  };
  const chips = [...Array(field.examples).keys()].map((n) => {
    const src = `/example/${tool}/${field.name}/${n}`;
    return make("button", {type: "button", className: "chip",
      onclick: async () => take(await (await fetch(src)).blob())}, image(`Example ${n + 1}`, src));
  });
  return {node, after: [...chips, clear], value: () => data};
}

function panel(tool, n) {
  const root = $("tool").content.cloneNode(true).firstElementChild;
  const find = (selector) => root.querySelector(selector);
  const status = find(".status"), cards = find(".cards"), go = find("button.primary");
  const cancel = find("button.quiet"), places = root.querySelectorAll(".fields");
  root.id = `panel${n}`;
  root.setAttribute("aria-labelledby", `tab${n}`);
  find(".about span").textContent = tool.about;
  find(".about code").textContent = tool.run;
  go.textContent = tool.title;
  const say = (text, wrong) => {
    status.textContent = text;
    status.classList.toggle("wrong", Boolean(wrong));
  };
  const inputs = tool.fields.map((field) => {
    const id = `field${n}-${field.name}`, one = input(field, id, n, say);
    const label = make("label", {htmlFor: id, textContent:
      field.label + (field.optional ? " (optional)" : "")});
    const row = make("div", {className: `field ${field.kind}`}, label, one.node);
    if (one.after && one.after.length)
      row.append(make("div", {className: "chips"}, ...one.after));
    if (field.about) {
      one.node.setAttribute("aria-describedby", `${id}-about`);
      row.append(make("p", {className: "soft", id: `${id}-about`, textContent: field.about}));
    }
    places[field.option ? 1 : 0].append(row);
    return [field.name, one];
  });
  find("details").hidden = !places[1].children.length;

  const show = {
    place: (place) => say(place ? `${place} before you` : "Computing"),
    error: (text) => say(text, true),
    note: (text) => find(".notes").append(make("li", {textContent: text})),
    done: (seconds) => {
      if (!status.classList.contains("wrong")) say(`Done in ${seconds.toFixed(1)} s`);
    },
    text: (text, event) => find(".said").append(make("li", {},
      make("b", {textContent: text}), make("i", {textContent: event.score.toFixed(2)}))),
    bars: (bars) => find(".said").append(...bars.map(([name, share]) => {
      const fill = make("i");
      fill.style.width = `${100 * share}%`;
      return make("li", {className: "bar"}, make("b", {textContent: name}),
        make("span", {textContent: `${(100 * share).toFixed(1)} %`}),
        make("div", {ariaHidden: "true"}, fill));
    })),
    card: (card) => {
      const text = [card.caption, card.by ? `${card.by} ${card.score.toFixed(3)}` : ""];
      const node = make("li", {}, image(card.alt, `data:image/png;base64,${card.image}`),
        ...text.map((line) => make("span", {textContent: line})));
      node.score = card.score;
      const below = [...cards.children].find((other) => other.score < node.score);
      cards.insertBefore(node, below || null);
    },
  };

  let stop = null;
  root.querySelector("form").onsubmit = async (event) => {
    event.preventDefault();
    if (stop) return;
    [".notes", ".said", ".cards"].forEach((list) => find(list).replaceChildren());
    say("Sent");
    if (innerWidth <= 760) find(".results").scrollIntoView({block: "start"});
    stop = new AbortController();
    go.disabled = true;
    cancel.hidden = false;
    try {
      const values = Object.fromEntries(inputs.map(([name, one]) => [name, one.value()]));
      const reply = await fetch(`/ask/${n}`, {method: "POST", signal: stop.signal,
        headers: {"Content-Type": "application/json"}, body: JSON.stringify(values)});
      if (!reply.ok) throw new Error((await reply.json()).error);
      const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let held = ""; ;) {
        const {value, done} = await reader.read();
        if (done) break;
        const lines = (held + value).split("\n");
        held = lines.pop();
        for (const line of lines) {
          const said = JSON.parse(line), [kind] = Object.keys(said);
          show[kind](said[kind], said);
        }
      }
    } catch (error) {
      if (error.name === "AbortError") say("Cancelled");
      else say(error.name === "TypeError" ? "The connection is lost: is mmjax app " +
        "still running?" : error.message, true);
    }
    stop = null;
    go.disabled = false;
    cancel.hidden = true;
  };
  cancel.onclick = () => stop && stop.abort();
  root.onkeydown = (event) => { if (event.key === "Escape") cancel.onclick(); };
  return root;
}

const names = facts.tools.map((tool) => tool.title);
const tabs = facts.tools.map((tool, n) => make("button", {type: "button", id: `tab${n}`,
  role: "tab", onclick: () => choose(n), textContent: names.indexOf(tool.title) ===
    names.lastIndexOf(tool.title) ? tool.title : `${tool.title} · ${tool.name}`}));
const panels = facts.tools.map(panel);

function choose(n, focus) {
  tabs.forEach((tab, m) => {
    tab.setAttribute("aria-selected", String(m === n));
    tab.setAttribute("aria-controls", `panel${m}`);
    tab.tabIndex = m === n ? 0 : -1;
    panels[m].hidden = m !== n;
  });
  if (focus) tabs[n].focus();
  history.replaceState(null, "", `#${n}`);
}

$("tabs").append(...tabs);
$("main").append(...panels);
$("tabs").onkeydown = (event) => {
  const by = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  if (by) choose((tabs.indexOf(document.activeElement) + by + tabs.length) % tabs.length, true);
};
choose(Number(location.hash.slice(1)) in tabs ? Number(location.hash.slice(1)) : 0);

(async () => {
  for (let left = 1; left; await sleep(1000)) {
    let now = [true];
    try {
      now = (await (await fetch("/state")).json()).compiling;
    } catch (error) {
      continue;  // asked again in a second
    }
    left = now.filter(Boolean).length;
    $("notice").textContent = `Compiling ${names[now.indexOf(true)]}, ` +
      `${now.length - left} of ${now.length} ready. What you send waits for its turn.`;
    $("notice").hidden = !left;
  }
})();
