"use strict";
// The sheet loads pages/N.js, which calls page(N, rows), and pages/facts.js, which calls facts(0, ...): a page opened from the disk may
// load scripts but not fetch data.
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const KEPT = 200;
const loaded = new Map();
const waiting = new Map();
let about = null;
let chosen = null;
let current = 0;
let turn = 0;

function page(number, rows) {
  loaded.set(number, rows);
  while (loaded.size > KEPT) loaded.delete(loaded.keys().next().value);
  const done = waiting.get(number);
  waiting.delete(number);
  if (done) done.forEach((call) => call(rows));
}

function rowsOf(number) {
  if (loaded.has(number)) return Promise.resolve(loaded.get(number));
  return new Promise((resolve) => {
    if (waiting.has(number)) { waiting.get(number).push(resolve); return; }
    waiting.set(number, [resolve]);
    const script = document.createElement("script");
    script.src = `pages/${number}.js`;
    script.onload = () => script.remove();
    script.onerror = () => page(number, []);
    document.head.append(script);
  });
}

function facts(_, value) {
  about = value;
  document.title = `${about.name}: contact sheet`;
  byId("name").textContent = about.name;
  options("class", [["", "all"], ...about.classes.map((name, k) => [String(k), `${name} (${(about.byClass[k] || []).length})`])]);
  options("split", [["", "all"], ...Object.keys(about.bySplit).map((name) => [name, `${name} (${about.bySplit[name].length})`])]);
  byId("class").parentElement.hidden = about.classes.length === 0;
  const asked = Number(location.hash.slice(1));
  choose(asked >= 1 ? asked - 1 : 0);
}

function options(id, pairs) {
  byId(id).replaceChildren(...pairs.map(([value, text]) => new Option(text, value)));
}

function choose(at) {
  const label = byId("class").value;
  const split = byId("split").value;
  chosen = null;
  if (label !== "") chosen = about.byClass[label] || [];
  if (split !== "") {
    const inside = about.bySplit[split];
    if (chosen === null) chosen = inside;
    else { const known = new Set(inside); chosen = chosen.filter((place) => known.has(place)); }
  }
  show(at);
}

const count = () => (chosen === null ? about.images : chosen.length);
const pages = () => Math.max(1, Math.ceil(count() / about.perPage));

async function show(at) {
  current = Math.min(Math.max(0, Math.floor(at) || 0), pages() - 1);
  const mine = ++turn;
  const start = current * about.perPage;
  const length = Math.min(about.perPage, count() - start);
  const places = Array.from({ length: Math.max(0, length) }, (_, k) => (chosen === null ? start + k : chosen[start + k]));
  const needed = [...new Set(places.map((place) => 1 + Math.floor(place / about.perPage)))];
  const found = new Map(await Promise.all(needed.map(async (number) => [number, await rowsOf(number)])));
  if (mine !== turn) return;
  const rows = places.map((place) => found.get(1 + Math.floor(place / about.perPage))[place % about.perPage]);
  byId("sheet").replaceChildren(...rows.filter(Boolean).map(figure));
  byId("about").textContent = `${about.images.toLocaleString("en")} images, ${about.task}, read as ${about.format}` +
    (chosen === null ? "" : `; ${count().toLocaleString("en")} chosen`) + (count() ? `; ${start + 1} to ${start + length}` : "");
  byId("number").value = current + 1;
  byId("number").max = pages();
  byId("pages").textContent = pages().toLocaleString("en");
  for (const [id, off] of [["first", current === 0], ["back", current === 0], ["next", current === pages() - 1], ["last", current === pages() - 1]]) byId(id).disabled = off;
  history.replaceState(null, "", `#${current + 1}`);
}

const colour = (label) => `hsl(${(label * about.hue) % 360} 90% 50%)`;

function figure(row) {
  const card = document.createElement("figure");
  if (row.error) {
    const text = document.createElement("div");
    text.className = "error";
    text.textContent = row.error;
    card.append(text);
  } else {
    const frame = picture(row, "button");
    frame.type = "button";
    frame.setAttribute("aria-label", `Enlarge ${row.path}`);
    frame.addEventListener("click", () => enlarge(row));
    card.append(frame);
  }
  const caption = document.createElement("figcaption");
  const counts = new Map();
  for (const label of [...(row.labels || []), ...(row.objects || []).map((one) => one.label)]) counts.set(label, (counts.get(label) || 0) + 1);
  for (const [label, n] of counts) {
    const chip = document.createElement("span");
    chip.className = "chip";
    chip.style.setProperty("--class", colour(label));
    chip.textContent = about.classes[label] + (n > 1 ? ` ×${n}` : "");
    caption.append(chip);
  }
  const path = document.createElement("div");
  path.className = "path";
  path.textContent = row.path + (row.width ? ` · ${row.width}×${row.height}` : "") + (row.split ? ` · ${row.split}` : "");
  caption.append(path);
  card.append(caption);
  return card;
}

function picture(row, tag) {
  const frame = document.createElement(tag);
  frame.className = "frame";
  const image = new Image();
  image.loading = "lazy";
  image.decoding = "async";
  image.width = row.width;
  image.height = row.height;
  image.alt = row.path;
  image.src = row.src;
  frame.append(image);
  if (row.mask) {
    const mask = new Image();
    mask.className = "mask";
    mask.alt = "";
    mask.src = row.mask;
    frame.append(mask);
  }
  if (row.objects && row.objects.length) frame.append(drawing(row));
  return frame;
}

function drawing(row) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${row.width} ${row.height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  for (const one of row.objects) {
    const [x1, y1, x2, y2] = one.box;
    const shape = one.rings ? element("path", { d: one.rings.map(outline).join(" "), "fill-opacity": 0.28, fill: colour(one.label) })
      : element("rect", { x: Math.min(x1, x2), y: Math.min(y1, y2), width: Math.abs(x2 - x1), height: Math.abs(y2 - y1), fill: "none" });
    shape.setAttribute("stroke", colour(one.label));
    shape.setAttribute("stroke-width", 2);
    shape.setAttribute("vector-effect", "non-scaling-stroke");
    if (one.note) shape.setAttribute("stroke-dasharray", "6 4");
    const title = document.createElementNS(SVG, "title");
    title.textContent = about.classes[one.label] + (one.note ? ` (${one.note})` : "");
    shape.append(title);
    svg.append(shape);
  }
  return svg;
}

function outline(ring) {
  let text = "";
  for (let k = 0; k + 1 < ring.length; k += 2) text += `${k ? "L" : "M"}${ring[k]} ${ring[k + 1]}`;
  return `${text}Z`;
}

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function enlarge(row) {
  byId("one").replaceChildren(picture(row, "div"), document.createTextNode(row.path));
  byId("large").showModal();
}

byId("class").addEventListener("change", () => choose(0));
byId("split").addEventListener("change", () => choose(0));
byId("drawn").addEventListener("change", (event) => document.body.classList.toggle("plain", !event.target.checked));
byId("zoom").addEventListener("input", (event) => byId("sheet").style.setProperty("--zoom", `${event.target.value}px`));
byId("number").addEventListener("change", (event) => show(event.target.value - 1));
byId("first").addEventListener("click", () => show(0));
byId("back").addEventListener("click", () => show(current - 1));
byId("next").addEventListener("click", () => show(current + 1));
byId("last").addEventListener("click", () => show(pages() - 1));
byId("close").addEventListener("click", () => byId("large").close());
byId("controls").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select") || byId("large").open) return;
  if (event.key === "ArrowRight") show(current + 1);
  if (event.key === "ArrowLeft") show(current - 1);
});
