"use strict";

// One slice across each axis; the first axis of a slice points to the right, the second upwards.
const one = (id) => document.getElementById(id);
const view = { label: 1, kind: "labels", cross: [], last: 0, state: null, about: null, centre: null };
const panels = [];
let stroke = null;

async function ask(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const reply = await fetch(path, options);
  const found = await reply.json();
  if (!reply.ok) throw new Error(found.error);
  return found;
}

function tell(text, fault = false) {
  one("message").textContent = text;
  one("message").classList.toggle("fault", fault);
}

async function change(path, body) {
  try {
    update(await ask(path, body));
  } catch (fault) {
    tell(fault.message, true);
  }
}

function axesOf(panel) {
  return view.about.shape.map((_, axis) => axis).filter((axis) => view.about.shape.length === 2 || axis !== panel.axis);
}

function makePanel(axis) {
  const figure = document.createElement("figure");
  figure.innerHTML = '<canvas></canvas><figcaption><span></span><input type="range"><output></output></figcaption>';
  one("panels").append(figure);
  const panel = { axis, figure, canvas: figure.querySelector("canvas"), slider: figure.querySelector("input"), base: null, over: null, wanted: "" };
  const { shape, spacing } = view.about;
  const flat = shape.length === 2;
  const [a, b] = axesOf(panel);
  const room = flat ? 900 : Math.max(260, (one("panels").clientWidth - 40) / 2);
  const tall = Math.max(220, flat ? window.innerHeight - 110 : (window.innerHeight - 170) / 2);
  const scale = Math.min(room / (shape[a] * spacing[a]), tall / (shape[b] * spacing[b]));
  panel.canvas.width = Math.round(shape[a] * spacing[a] * scale);
  panel.canvas.height = Math.round(shape[b] * spacing[b] * scale);
  panel.canvas.dataset.axis = axis;
  figure.querySelector("span").textContent = flat ? "image" : ["first axis", "second axis", "third axis"][axis];
  figure.querySelector("input").hidden = flat;
  if (!flat) {
    panel.slider.max = shape[axis] - 1;
    panel.slider.addEventListener("input", () => moveTo(axis, Number(panel.slider.value)));
  }
  panel.canvas.addEventListener("pointerdown", (event) => press(panel, event));
  panel.canvas.addEventListener("pointermove", (event) => drag(panel, event));
  panel.canvas.addEventListener("pointerup", release);
  panel.canvas.addEventListener("pointercancel", release);
  panel.canvas.addEventListener("pointerleave", () => { panel.mouse = null; draw(panel); });
  panel.canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  panel.canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (!flat) moveTo(axis, view.cross[axis] + (event.deltaY < 0 ? 1 : -1));
  }, { passive: false });
  return panel;
}

function voxelAt(panel, event) {
  const box = panel.canvas.getBoundingClientRect();
  const [a, b] = axesOf(panel);
  const { shape } = view.about;
  const found = [...view.cross];
  const clip = (x, size) => Math.min(Math.max(Math.floor(x), 0), size - 1);
  found[a] = clip(((event.clientX - box.left) / box.width) * shape[a], shape[a]);
  found[b] = clip((1 - (event.clientY - box.top) / box.height) * shape[b], shape[b]);
  return found;
}

function press(panel, event) {
  panel.canvas.setPointerCapture(event.pointerId);
  view.last = panel.axis;
  panels.forEach((each) => each.figure.classList.toggle("active", each === panel));
  if (event.button === 2 || event.shiftKey) {
    stroke = { panel, moving: true, points: [] };
    cross(voxelAt(panel, event));
  } else if (event.button === 0) {
    stroke = { panel, moving: false, points: [voxelAt(panel, event)] };
    draw(panel);
  }
}

function drag(panel, event) {
  panel.mouse = voxelAt(panel, event);
  if (stroke && stroke.moving) cross(panel.mouse);
  else if (stroke && stroke.panel === panel) between(stroke.points, panel.mouse);
  draw(panel);
}

function between(points, next) {
  const before = points[points.length - 1];
  const steps = Math.max(...next.map((value, axis) => Math.abs(value - before[axis])));
  for (let step = 1; step <= steps; step += 1) {
    points.push(next.map((value, axis) => Math.round(before[axis] + ((value - before[axis]) * step) / steps)));
  }
}

function release() {
  const done = stroke;
  stroke = null;
  if (!done || done.moving || !done.points.length) return;
  change("paint", { points: done.points, axis: done.panel.axis, radius: Number(one("radius").value), label: view.label });
}

function cross(voxel) {
  view.cross = voxel;
  panels.forEach(load);
  here();
}

function moveTo(axis, index) {
  const next = [...view.cross];
  next[axis] = Math.min(Math.max(index, 0), view.about.shape[axis] - 1);
  cross(next);
}

function picture(url) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error(`${url}: no answer from the program`));
    image.src = url;
  });
}

async function load(panel) {
  const index = view.cross[panel.axis];
  const version = view.state ? view.state.version : 0;
  const where = `axis=${panel.axis}&index=${index}`;
  const wanted = `${where}&kind=${view.kind}&label=${Math.max(view.label, 1)}&version=${version}`;
  panel.slider.value = index;
  panel.figure.querySelector("output").textContent = view.about.shape.length === 2 ? "" : `${index + 1} / ${view.about.shape[panel.axis]}`;
  if (panel.wanted === wanted) return draw(panel);
  panel.wanted = wanted;
  try {
    const [base, over] = await Promise.all([
      panel.where === where ? panel.base : picture(`slice?${where}`), picture(`overlay?${wanted}`)]);
    if (panel.wanted !== wanted) return undefined;
    Object.assign(panel, { base, over, where });
    panel.canvas.dataset.version = version;
    panel.canvas.dataset.kind = view.kind;
  } catch (fault) {
    panel.wanted = "";
    tell(fault.message, true);
  }
  return draw(panel);
}

function draw(panel) {
  if (!panel.base) return;
  const context = panel.canvas.getContext("2d");
  const { width, height } = panel.canvas;
  const { shape, labels } = view.about;
  const [a, b] = axesOf(panel);
  const [wide, high] = [width / shape[a], height / shape[b]];
  context.imageSmoothingEnabled = true;
  context.drawImage(panel.base, 0, 0, width, height);
  context.imageSmoothingEnabled = false;
  context.globalAlpha = Number(one("opacity").value);
  context.drawImage(panel.over, 0, 0, width, height);
  context.globalAlpha = 1;
  const disc = (voxel) => {
    const radius = Number(one("radius").value) + 0.5;
    context.beginPath();
    context.ellipse((voxel[a] + 0.5) * wide, height - (voxel[b] + 0.5) * high, radius * wide, radius * high, 0, 0, 7);
  };
  if (stroke && stroke.panel === panel) {
    context.fillStyle = view.label ? `rgb(${labels[view.label - 1].colour})` : "#888";
    stroke.points.forEach((voxel) => { disc(voxel); context.fill(); });
  }
  if (shape.length === 3) {
    context.strokeStyle = "rgba(120, 220, 255, .55)";
    context.beginPath();
    const [x, y] = [(view.cross[a] + 0.5) * wide, height - (view.cross[b] + 0.5) * high];
    context.moveTo(x, 0); context.lineTo(x, height); context.moveTo(0, y); context.lineTo(width, y);
    context.stroke();
  }
  if (panel.mouse) {
    context.strokeStyle = "#fff";
    disc(panel.mouse);
    context.stroke();
  }
}

function here() {
  one("here").textContent = view.cross.join(", ");
}

function number(value, digits = 2) {
  return value === null || value === undefined ? "–" : Number(value.toPrecision(digits)).toString();
}

function update(state) {
  view.state = state;
  state.seeds.forEach((count, index) => { document.querySelectorAll("#labels .count")[index].textContent = count; });
  one("undo").disabled = state.undo === 0;
  one("save").disabled = !state.answered;
  one("time").textContent = state.milliseconds === null ? "–" : `${number(state.milliseconds, 3)} ms`;
  one("error").textContent = state.answered && state.error !== null ? `≤ ${number(state.error)}` : "not yet";
  one("flips").textContent = state.flips === null || state.flips === undefined ? "–" : `${number(100 * state.flips)} % of the voxels`;
  one("stage").textContent = state.answered ? state.stage : "seeds of two labels are needed";
  document.body.dataset.stage = state.stage;
  document.body.dataset.version = state.version;
  tell(state.answered ? `${view.about.pairs} eigenvectors, problem ${view.about.kind}` : "paint seeds of two labels");
  panels.forEach(load);
}

function pick(label) {
  if (label > view.about.labels.length) return;
  view.label = label;
  document.querySelectorAll("#labels .choice").forEach((button, index) => button.setAttribute("aria-pressed", index + 1 === label));
  one("erase").setAttribute("aria-pressed", label === 0);
  panels.forEach(load);
}

function show(kind) {
  view.kind = kind;
  document.querySelectorAll("#kinds button").forEach((button) => button.setAttribute("aria-pressed", button.dataset.kind === kind));
  const ends = { probability: ["0", "1"], entropy: ["certain", "undecided"] }[kind];
  one("scale").style.display = ends ? "grid" : "none";
  if (ends) one("scale").querySelectorAll("span").forEach((span, index) => { span.textContent = ends[index]; });
  panels.forEach(load);
}

let asking = false;
let again = false;

async function graph() {
  const factor = 2 ** Number(one("beta").value);
  const half = Number(one("region").value);
  const whole = half >= Number(one("region").max);
  if (whole) view.centre = null;
  else view.centre = view.centre || [...view.cross];
  one("beta").nextElementSibling.textContent = number(view.about.beta * factor, 3);
  one("region").nextElementSibling.textContent = whole ? "all" : `± ${half}`;
  if (asking) { again = true; return; }
  asking = true;
  await change("graph", { factor, region: whole ? null : { centre: view.centre, half } });
  asking = false;
  if (again) { again = false; graph(); }
}

async function save() {
  try {
    const { files } = await ask("save", {});
    one("saved").textContent = `written: ${files.join(", ")}`;
  } catch (fault) {
    tell(fault.message, true);
  }
}

function keys(event) {
  if (event.ctrlKey && event.key.toLowerCase() === "z") { event.preventDefault(); change("undo", {}); return; }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.toLowerCase();
  const kinds = { l: "labels", p: "probability", u: "entropy", i: "none" };
  if (/^[1-7]$/.test(key)) pick(Number(key));
  else if (kinds[key]) show(kinds[key]);
  else if (key === "e") pick(0);
  else if (key === "z") change("undo", {});
  else if (key === "s") save();
  else if (key === "[" || key === "]") { one("radius").value = Number(one("radius").value) + (key === "]" ? 1 : -1); values(); }
  else if ((key === "arrowup" || key === "arrowdown") && event.target.type !== "range" && view.about.shape.length === 3) {
    event.preventDefault();
    moveTo(view.last, view.cross[view.last] + (key === "arrowup" ? 1 : -1));
  }
}

function values() {
  one("radius").nextElementSibling.textContent = `${one("radius").value} voxels`;
  one("opacity").nextElementSibling.textContent = `${Math.round(100 * one("opacity").value)} %`;
  panels.forEach(draw);
}

async function poll() {
  try {
    const state = await ask("state");
    if (!view.state || state.version !== view.state.version || state.stage !== view.state.stage) update(state);
  } catch (fault) {
    tell(fault instanceof TypeError ? "the program has ended" : fault.message, true);
  }
  setTimeout(poll, 400);
}

async function begin() {
  view.about = await ask("about");
  one("name").textContent = view.about.name;
  view.about.labels.forEach(({ name, colour }, index) => {
    const button = document.createElement("button");
    button.className = "choice";
    button.innerHTML = `<i class="swatch" style="background: rgb(${colour})"></i><span></span><kbd>${index + 1}</kbd><span class="count">0</span>`;
    button.querySelector("span").textContent = name;
    button.addEventListener("click", () => pick(index + 1));
    one("labels").append(button);
  });
  view.cross = view.about.focus;
  const flat = view.about.shape.length === 2;
  one("panels").classList.toggle("flat", flat);
  (flat ? [0] : [2, 1, 0]).forEach((axis) => panels.push(makePanel(axis)));
  view.last = panels[0].axis;
  const reach = Math.ceil(Math.max(...view.about.shape) / 2);
  one("region").max = reach;
  one("region").value = reach;
  document.querySelectorAll("#kinds button").forEach((button) => button.addEventListener("click", () => show(button.dataset.kind)));
  one("erase").addEventListener("click", () => pick(0));
  one("undo").addEventListener("click", () => change("undo", {}));
  one("clear").addEventListener("click", () => change("clear", {}));
  one("save").addEventListener("click", save);
  one("beta").addEventListener("input", graph);
  one("region").addEventListener("input", graph);
  one("radius").addEventListener("input", values);
  one("opacity").addEventListener("input", values);
  document.addEventListener("keydown", keys);
  one("beta").nextElementSibling.textContent = number(view.about.beta, 3);
  one("region").nextElementSibling.textContent = "all";
  values();
  pick(1);
  show("labels");
  here();
  await poll();
  document.body.dataset.ready = "yes";
}

begin().catch((fault) => tell(fault.message, true));
