/**
 * The page: a picture goes in, the network runs step by step, and what it does is drawn.
 *
 * `run` keeps what every step gave; drawing only reads it, so that moving through time costs nothing.
 */

import { operations, price } from "./conventions.js";
import { decode, fromBitmap } from "./picture.js";
import { places, runSteps } from "./run.js";

const $ = (id) => document.getElementById(id);
const PLAY_MILLISECONDS = 700;
const RASTER_NEURONS = 400;
const KINDS = { access: "memory", mac: "MACs", ac: "SynOps", add: "additions", update: "updates" };

const state = {
  page: null, // page.json
  networks: { wasm: new Map(), webgpu: new Map() }, // name -> Network, loaded and proved
  network: null,
  pictures: new Map(), // name -> samples/NAME.json
  pixels: null,
  title: "", // of the picture
  sample: -1, // which of the bundled pictures it is
  /** @type {{input: Float32Array, mean: number[], spikes: Map<string, Float32Array>, rows: Object[]}[]} */
  run: [],
  step: 1,
  layer: null, // whose dialog is open
  turn: 0, // of the latest run: an older one gives up
};

// -- loading

async function start() {
  if (location.protocol === "file:") throw new Error("Open this page through a server: python -m http.server in its folder, then localhost:8000.");
  if (typeof WebAssembly === "undefined") throw new Error("This browser has no WebAssembly, which runs the network.");
  state.page = await json("page.json");
  const names = state.page.models.map(({ name }) => name);
  fill($("model"), names.map((name) => [name, name]));
  fill($("device"), state.page.devices.map(({ name, title }) => [name, `${name}: ${title}`]));
  fill($("convention"), state.page.conventions.map(({ name }) => [name, name]));
  $("gallery").hidden = names.length < 2;
  drawGallery();
  offerGraphics();
  try {
    await choose(asked());
  } catch (error) {
    await choose(state.page.models[0].name);
    throw error;
  }
}

/** The network that the address names; without a name the first. */
function asked() {
  const names = state.page.models.map(({ name }) => name);
  const name = decodeURIComponent(location.hash.slice(1)) || names[0];
  if (names.includes(name)) return name;
  throw new Error(`“${name}” is no network of this page: choose one above.`);
}

/** Offer the graphics processor where the browser has one that it lets a page use. */
async function offerGraphics() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  if (adapter) $("provider").append(new Option("the graphics processor (WebGPU)", "webgpu"));
}

async function json(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path} cannot be loaded: ${response.status} ${response.statusText}`);
  return response.json();
}

/** Return a network, loaded and proved once, by the processor chosen; by WebAssembly if that one fails or differs. */
async function load(name) {
  const [provider, turn] = [$("provider").value, state.turn];
  if (provider === "wasm") return loadOn("wasm", name);
  try {
    const network = await loadOn(provider, name);
    if (!network.proof.differs) {
      $("provider-note").textContent = "The graphics processor computes: its spikes are those of the export.";
      return network;
    }
    useProcessor(network.proof.text, turn);
  } catch (error) {
    useProcessor(error.message, turn);
  }
  return loadOn("wasm", name);
}

function useProcessor(reason, turn) {
  if (turn !== state.turn) return; // the visitor chose again meanwhile
  $("provider").value = "wasm";
  $("provider-note").textContent = `The processor computes, as the graphics processor could not do it exactly (${reason}).`;
}

/** Return a network that one provider computes, with a bar while its file comes. */
async function loadOn(provider, name) {
  const networks = state.networks[provider];
  if (!networks.has(name)) {
    const record = { ...(await json(`models/${name}.json`)), runtime: state.page.runtime };
    const megabytes = (record.bytes / 1e6).toFixed(1);
    $("loading-text").textContent = `Loading ${name}, ${megabytes} MB, and onnxruntime-web`;
    $("loading").hidden = false;
    try {
      const { Network } = await import("./network.js");
      const network = await Network.load(record, provider, (share) => ($("progress").value = share));
      network.proof = await prove(network, await picturesOf(record.pictures));
      networks.set(name, network);
    } finally {
      $("loading").hidden = true;
    }
  }
  return networks.get(name);
}

async function picturesOf(name) {
  if (!state.pictures.has(name)) state.pictures.set(name, await json(`samples/${name}.json`));
  return state.pictures.get(name);
}

async function choose(name) {
  const turn = ++state.turn;
  $("model").value = name;
  const network = await load(name);
  if (turn !== state.turn) return; // another choice came meanwhile
  const { record, proof } = network;
  const { data } = record;
  const other = state.network?.record.pictures !== record.pictures;
  Object.assign(state, { network, run: [] });
  $("main").hidden = false;
  $("steps").textContent = record.steps;
  $("step").max = record.steps;
  $("about").textContent = about(record);
  $("files").textContent = `${record.name}: ${record.proof}.`;
  $("frame-figure").hidden = !data.saccades;
  $("proof").textContent = proof.text;
  $("proof").classList.toggle("differs", proof.differs);
  drawStructure(record);
  if (other) drawSamples();
  // a picture stays where the next network reads the same kind
  await (other || !state.pixels ? show(samplePixels(0), sampleTitle(0), 0) : show(state.pixels, state.title, state.sample));
}

function about({ name, steps, parameters, weights, accuracy, data }) {
  const told = accuracy
    ? `${percent(accuracy.top1)} of ${accuracy.images.toLocaleString("en")} ${accuracy.split} images right`
    : "of an accuracy that nobody measured";
  const rounded = weights === "float32" ? "" : `, weights as ${weights}`;
  return `${name}: ${data.title}, T = ${steps}, ${parameters.toLocaleString("en")} parameters${rounded}; ${told}.`;
}

/** Run the recorded picture, and compare every layer's spikes with those of the export. */
async function prove(network, pictures) {
  const { recorded, neurons } = network.record;
  const steps = await runSteps(network, decodePixels(pictures.pixels[recorded.picture]));
  const differ = neurons.filter(({ node, output }) =>
    recorded.spikes.some((spikes, i) => String(spikes[output]) !== String(places(steps[i].spikes.get(node)))),
  );
  const logits = steps.at(-1).mean.map((value, i) => Math.abs(value - recorded.logits[i]));
  const text =
    `${differ.length} of ${neurons.length} layers differ from the spikes that onnxruntime recorded at the export; ` +
    `the logits by ${Math.max(...logits).toExponential(1)}` +
    (recorded.margin ? "" : "; in this picture a membrane lies so near to its threshold that rounding decides");
  return { text, differs: differ.length > 0 };
}

// -- running

async function show(pixels, title, sample = -1) {
  const turn = ++state.turn;
  stopPlaying();
  problem("");
  Object.assign(state, { pixels, title, sample });
  [...$("samples").children].forEach((button, i) => button.setAttribute("aria-pressed", i === sample));
  drawPicture();
  clearCompared();
  await runSteps(state.network, pixels, (run) => {
    if (turn !== state.turn) return false; // another picture came meanwhile
    state.run = run;
    state.step = run.length;
    draw();
    return true;
  });
}

// -- pictures

function decodePixels(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

const picturesNow = () => state.pictures.get(state.network.record.pictures);
const samplePixels = (index) => decodePixels(picturesNow().pixels[index]);
const sampleTitle = (index) => picturesNow().titles[index];

async function open(blob) {
  try {
    await show(await decode(blob, state.network.record.data), blob.name ?? "a pasted picture");
  } catch (error) {
    problem(error.message);
  }
}

async function camera() {
  const video = $("video");
  if (!video.srcObject) {
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: true });
    } catch {
      return problem("The camera cannot be used: it is missing, or was not allowed.");
    }
    video.hidden = false;
    $("camera").textContent = "Take the picture";
    return video.play();
  }
  const pixels = fromBitmap(video, state.network.record.data);
  video.srcObject.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
  video.hidden = true;
  $("camera").textContent = "Camera";
  return show(pixels, "a picture of the camera");
}

// -- drawing

function draw() {
  if (!state.run.length) return; // nothing ran yet
  const { record } = state.network;
  const now = state.run[state.step - 1];
  const probabilities = softmax(now.mean);
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  $("step").value = state.step;
  $("step-text").textContent = state.step;
  $("answer").textContent = `${record.data.classes[order[0]]}, ${percent(probabilities[order[0]])} sure`;
  drawFrame(now.input);
  drawClasses(record, probabilities, order.slice(0, 10));
  drawBuys(record);
  drawMaps(now.spikes);
  drawWires();
  drawEnergy(counted(now, state.step));
  if ($("layer").open) drawLayer();
}

function drawPicture() {
  const { size, channels } = state.network.record.data;
  paint($("picture"), size, size, (i) => {
    const at = (channel) => state.pixels[channel * size * size + i];
    return channels === 1 ? [at(0), at(0), at(0)] : [at(0), at(1), at(2)];
  });
  $("picture-text").textContent = state.title;
}

function drawFrame(input) {
  const { size, saccades } = state.network.record.data;
  if (!saccades) return;
  const area = size * size;
  paint($("frame"), size, size, (i) => (input[i] ? [240, 163, 94] : input[area + i] ? [130, 184, 242] : [16, 21, 27]));
}

function drawSamples() {
  const { shape, pixels: all } = picturesNow();
  const [channels, height, width] = shape;
  $("samples").replaceChildren(
    ...all.map((_, index) => {
      const [button, canvas, pixels] = [element("button"), element("canvas"), samplePixels(index)];
      button.type = "button";
      button.setAttribute("aria-label", sampleTitle(index));
      paint(canvas, width, height, (i) => [0, 1, 2].map((c) => pixels[(c % channels) * width * height + i]));
      button.append(canvas);
      button.onclick = guard(() => show(samplePixels(index), sampleTitle(index), index));
      return button;
    }),
  );
}

function drawClasses({ data }, probabilities, order) {
  $("classes").tBodies[0].replaceChildren(
    ...[...order].sort((a, b) => a - b).map((index) => {
      const bar = element("div", "", "bar");
      bar.style.width = `${100 * probabilities[index]}%`;
      return row([data.classes[index], bar, percent(probabilities[index])]);
    }),
  );
}

function drawBuys({ data, accuracy }) {
  const known = accuracy?.top1_by_step;
  $("buys-right").textContent = known ? `right of ${accuracy.images.toLocaleString("en")}` : "";
  $("buys").tBodies[0].replaceChildren(
    ...state.run.map((step, i) => {
      const [probabilities, rows] = [softmax(step.mean), counted(step, i + 1)];
      const best = probabilities.indexOf(Math.max(...probabilities));
      const counts = [exactly(totalOf(rows, "ac")), joules(energyOf(rows)) || "no price"];
      const line = row([i + 1, data.classes[best], percent(probabilities[best]), ...counts, known ? percent(known[i]) : ""]);
      if (i + 1 === state.step) line.setAttribute("aria-current", "step");
      return line;
    }),
  );
}

/** Lay out stages, their blocks, and the connections into them, by the names of the layers. */
function drawStructure({ neurons, plan }) {
  const shapes = new Map(plan.map((node) => [node.name, node.out]));
  const stages = new Map();
  for (const { node } of neurons) {
    const [stage, block] = node.split("_");
    if (!stages.has(stage)) stages.set(stage, new Map());
    const blocks = stages.get(stage);
    const name = inWords(block);
    if (!blocks.has(name)) blocks.set(name, []);
    blocks.get(name).push(node);
  }
  $("map").replaceChildren(
    ...[...stages].map(([stage, blocks]) => {
      const [box, inside] = [element("div", "", "stage"), element("div", "", "blocks")];
      const [, height, width] = shapes.get([...blocks.values()].at(-1).at(-1));
      const heading = element("h3", inWords(stage));
      heading.append(element("div", `${height} x ${width}`, "hint"));
      for (const [name, nodes] of blocks) {
        const [block, maps] = [element("div", "", "block"), element("div", "", "maps")];
        maps.append(...nodes.map((node) => mapButton(node, shapes.get(node))));
        block.append(...(name ? [element("span", name)] : []), maps);
        inside.append(block);
      }
      const wires = element("p", "", "wires");
      wires.append(...plan.filter(({ name }) => isWire(name, stage)).map(wire));
      const right = element("div");
      right.append(inside, ...(wires.children.length ? [wires] : []));
      box.append(heading, right);
      return box;
    }),
  );
}

/** Whether a node is a shortcut of a stage's block, or a densely additive link into the stage. */
function isWire(name, stage) {
  return name.startsWith(`${stage}_`) && /_(link\d+|shortcut)(_conv)?$/.test(name);
}

function wire({ name }) {
  const parts = name.split("_").slice(1).filter((part) => part !== "conv");
  const text = element("span", `${parts.map(inWords).join(", ")}: `);
  const number = element("b");
  number.dataset.row = name;
  text.append(number);
  return text;
}

/** A part of a layer's name as people say it: link 0 comes from the stem, link 2 from stage 2. */
function inWords(part = "") {
  const [, word, number] = part.match(/^([a-z]+)(\d*)$/) ?? [null, part, ""];
  if (word === "link") return number === "0" ? "link from the stem" : `link from stage ${number}`;
  if (word === "lif") return "";
  if (word === "stage" || word === "head" || word === "stem") return `${word[0].toUpperCase()}${word.slice(1)} ${number}`.trim();
  return `${word} ${number}`.trim();
}

function mapButton(node, [channels, height, width]) {
  const button = element("button", "", "map");
  button.type = "button";
  button.dataset.node = node;
  button.append(element("canvas"), element("span", node.split("_").at(-1)), element("span", "", "rate"));
  button.title = `${node}: ${channels} channels of ${height} x ${width} neurons`;
  button.onclick = () => {
    state.layer = node;
    drawLayer();
    $("layer").showModal();
    $("layer").scrollTop = 0;
  };
  return button;
}

function drawMaps(spikes) {
  const shapes = shapeOf();
  for (const button of $("map").querySelectorAll(".map")) {
    const train = spikes.get(button.dataset.node);
    const [channels, height, width] = shapes(button.dataset.node);
    const area = height * width;
    paint(button.querySelector("canvas"), width, height, (i) => {
      let fired = 0;
      for (let c = 0; c < channels; c++) fired += train[c * area + i];
      return heat(fired / channels);
    });
    const rate = sum(train) / train.length;
    button.querySelector(".rate").textContent = `${percent(rate)} fire`;
  }
}

/** Write how many SynOps every shortcut and link makes at this step. */
function drawWires() {
  const at = (step) => new Map(state.run[step - 1]?.rows.map(({ name, acs }) => [name, acs]));
  const [now, before] = [at(state.step), at(state.step - 1)];
  for (const number of $("map").querySelectorAll("[data-row]")) {
    const { row } = number.dataset;
    number.textContent = `${count((now.get(row) ?? 0) - (before.get(row) ?? 0))} SynOps`;
  }
}

function drawLayer() {
  const [channels, height, width] = shapeOf()(state.layer);
  const train = state.run[state.step - 1].spikes.get(state.layer);
  $("layer-title").textContent = state.layer;
  $("layer-text").textContent = `${channels} channels of ${height} x ${width} neurons; ${count(sum(train))} of ${count(train.length)} fire at step ${state.step}.`;
  const across = Math.ceil(Math.sqrt(channels));
  const down = Math.ceil(channels / across);
  const [w, h] = [width + 1, height + 1]; // a line between channels
  paint($("channels"), across * w, down * h, (i) => {
    const [x, y] = [i % (across * w), Math.floor(i / (across * w))];
    const channel = Math.floor(y / h) * across + Math.floor(x / w);
    if (channel >= channels || x % w === width || y % h === height) return [70, 80, 90];
    return heat(train[(channel * height + (y % h)) * width + (x % w)]);
  });
  $("channels").style.width = `${across * w * Math.max(1, Math.floor(480 / (across * w)))}px`;
  const neurons = Math.min(RASTER_NEURONS, train.length);
  $("raster-neurons").textContent = neurons;
  // spread over all channels
  const every = train.length / neurons;
  const trains = state.run.map((step) => step.spikes.get(state.layer));
  paint($("raster"), trains.length, neurons, (i) => heat(trains[i % trains.length][Math.floor(Math.floor(i / trains.length) * every)]));
  $("raster").style.height = `${neurons}px`;
  $("raster-steps").replaceChildren(...trains.map((_, i) => element("span", String(i + 1))));
}

function drawEnergy(rows) {
  const device = deviceNow();
  const whole = energyOf(rows);
  const [macs, acs] = ["mac", "ac"].map((kind) => totalOf(rows, kind));
  const spikes = sum(state.run.slice(0, state.step).map((step) => sum([...step.spikes.values()].map(sum))));
  $("energy").textContent = whole
    ? `${joules(whole)} after step ${state.step}: ${count(spikes)} spikes, ${count(acs)} SynOps, ${count(macs)} MACs`
    : `${count(spikes)} spikes, ${count(acs)} SynOps, ${count(macs)} MACs; ${device.name} has no price for ${unpriced(rows, device).join(", ")}`;
  const band = whole && whole[0] !== whole[2] ? ` The prices give ${joules(whole, 0)} to ${joules(whole, 2)}.` : "";
  $("device-note").textContent = `${conventionNow().explanation} ${device.note}${band}`;
  drawParts(rows, device);
  $("rows").tBodies[0].replaceChildren(
    ...rows.map(({ name, operations }) => {
      const updates = (operations.update ?? 0) + (operations.idle_update ?? 0);
      const numbers = [operations.mac, operations.ac, operations.add, updates].map((n) => (n ? exactly(n) : ""));
      return row([name, ...numbers, joules(price(operations, device.prices)) || "no price"]);
    }),
  );
}

/** Draw the energy of the stem, the stages and the head; their SynOps where a price is missing. */
function drawParts(rows, { prices }) {
  const parts = new Map();
  for (const { name, operations } of rows) {
    const part = inWords(name.split("_")[0]);
    const all = parts.get(part) ?? {};
    for (const [kind, n] of Object.entries(operations)) all[kind] = (all[kind] ?? 0) + n;
    parts.set(part, all);
  }
  const priced = [...parts.values()].every((all) => price(all, prices));
  const value = (all) => (priced ? price(all, prices)[1] : (all.ac ?? 0));
  const most = Math.max(...[...parts.values()].map(value));
  $("parts").tBodies[0].replaceChildren(
    ...[...parts].map(([part, all]) => {
      const bar = element("div", "", "bar");
      bar.style.width = `${(100 * value(all)) / most}%`;
      return row([part, bar, priced ? joules(price(all, prices)) : `${count(value(all))} SynOps`]);
    }),
  );
}

/** Run every network of the same kind of picture, and write what it says beside its name. */
async function compare() {
  const { pixels, network: chosen } = state;
  const turn = state.turn;
  const kinds = new Map(state.page.models.map(({ name, pictures }) => [name, pictures]));
  $("compare").disabled = true;
  try {
    for (const line of $("networks").tBodies[0].rows) {
      if (kinds.get(line.dataset.name) !== chosen.record.pictures) continue;
      const network = await load(line.dataset.name);
      const { record } = network;
      const last = (await runSteps(network, pixels)).at(-1);
      if (turn !== state.turn) return; // another picture came meanwhile
      const rows = counted(last, record.steps);
      const probabilities = softmax(last.mean);
      const best = probabilities.indexOf(Math.max(...probabilities));
      const answer = `${record.data.classes[best]}, ${percent(probabilities[best])}`;
      line.cells[6].textContent = `${answer}, ${joules(energyOf(rows, record)) || `${count(totalOf(rows, "ac"))} SynOps`}`;
    }
  } finally {
    $("compare").disabled = false;
  }
}

/** Forget what was said of another picture. */
function clearCompared() {
  for (const line of $("networks").tBodies[0].rows) line.cells[6].textContent = "";
}

/** The table of all networks, which sorts by a column, and their accuracy against energy. */
function drawGallery() {
  const lines = state.page.models.map((model) => {
    const { name, title, steps, parameters, accuracy, energy } = model;
    const choice = element("button", name, "link");
    choice.type = "button";
    choice.onclick = () => pick(name);
    const figures = [accuracy ? percent(accuracy.top1) : "not measured", energy ? `${energy.microjoules.toFixed(1)} µJ` : "not measured"];
    const line = row([choice, title, steps, count(parameters), ...figures, ""]);
    line.dataset.name = name;
    const keys = [name, title, steps, parameters, accuracy?.top1 ?? -1, energy?.microjoules ?? Infinity];
    [...line.cells].forEach((cell, i) => (cell.sortKey = keys[i] ?? ""));
    return line;
  });
  $("networks").tBodies[0].replaceChildren(...lines);
  [...$("networks").tHead.rows[0].cells].forEach((head, i) => {
    const button = head.querySelector("button");
    if (button) button.onclick = () => sortGallery(head, i);
  });
  drawPlot();
}

function sortGallery(head, column) {
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = (line) => line.cells[column].sortKey;
  const lines = [...$("networks").tBodies[0].rows];
  lines.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0) * (up ? 1 : -1));
  $("networks").tBodies[0].replaceChildren(...lines);
}

/** Points of accuracy against energy, each a link to its network. */
function drawPlot() {
  const models = state.page.models.filter(({ accuracy, energy }) => accuracy && energy);
  $("plot").hidden = models.length < 2;
  if (models.length < 2) return;
  const xs = models.map(({ energy }) => energy.microjoules);
  const ys = models.map(({ accuracy }) => accuracy.top1);
  const most = 1.15 * Math.max(...xs);
  const [low, high] = [Math.min(...ys) - 0.02, Math.max(...ys) + 0.02];
  const device = [...new Set(models.map(({ energy }) => energy.device))].join(", ");
  const across = ticks(0, most).map((value) => tick("x", (100 * value) / most, value));
  const up = ticks(100 * low, 100 * high).map((value) => tick("y", (value - 100 * low) / (high - low), `${value} %`));
  const points = models.map(({ name, accuracy, energy }) => {
    const point = element("a", "", "point");
    point.href = `#${name}`;
    point.style.left = `${(100 * energy.microjoules) / most}%`;
    point.style.bottom = `${(100 * (accuracy.top1 - low)) / (high - low)}%`;
    if (energy.microjoules > most / 2) point.classList.add("late");
    point.append(element("span", `${name}: ${percent(accuracy.top1)}, ${energy.microjoules.toFixed(1)} µJ`));
    return point;
  });
  $("points").replaceChildren(...across, ...up, ...points);
  $("plot-text").textContent = `Top-1 against the energy of an image in µJ, on ${device}. Networks of different data are no rivals.`;
}

/** About five round numbers between two values. */
function ticks(low, high) {
  const rough = (high - low) / 5;
  const decade = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * decade).find((size) => size >= rough);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** A mark of an axis, at a share of its length in percent. */
function tick(axis, place, text) {
  const mark = element("span", text, `tick ${axis}`);
  mark.style[axis === "x" ? "left" : "bottom"] = `${place}%`;
  return mark;
}

/** Go to a network; the browser's Back returns from it. */
function pick(name) {
  location.hash = name;
  scrollTo(0, 0); // where its picture and answer are
}

// -- numbers

/** The operations of each row by the convention chosen, after so many steps. */
const counted = ({ rows }, step) => rows.map((row) => ({ name: row.name, operations: operations(conventionNow(), row, step) }));
const conventionNow = () => state.page.conventions.find(({ name }) => name === $("convention").value);

const sum = (values) => values.reduce((total, value) => total + value, 0);
const totalOf = (rows, kind) => sum(rows.map(({ operations }) => operations[kind] ?? 0));
/** The device chosen, with what an access to each memory of a network costs on it. */
function deviceNow({ accesses } = state.network.record) {
  const device = state.page.devices.find(({ name }) => name === $("device").value);
  return { ...device, prices: { ...device.prices, ...accesses[device.name] } };
}
const percent = (share) => `${(100 * share).toFixed(1)}%`;

/** Low, typical and high picojoules of all rows; null where an operation has no price. */
function energyOf(rows, record) {
  const device = deviceNow(record);
  const prices = rows.map(({ operations }) => price(operations, device.prices));
  return prices.every(Boolean) ? [0, 1, 2].map((i) => sum(prices.map((each) => each[i]))) : null;
}

function unpriced(rows, { prices }) {
  const kinds = new Set(rows.flatMap(({ operations }) => Object.keys(operations)));
  const words = [...kinds].filter((kind) => !prices[kind]).map((kind) => KINDS[kind.split(":")[0]] ?? kind);
  return [...new Set(words)];
}

function joules(picojoules, which = 1) {
  if (!picojoules) return "";
  const value = picojoules[which];
  for (const [scale, unit] of [[1e9, "mJ"], [1e6, "µJ"], [1e3, "nJ"]])
    if (value >= scale) return `${(value / scale).toPrecision(3)} ${unit}`;
  return `${value.toPrecision(3)} pJ`;
}

function count(n) {
  for (const [scale, letter] of [[1e9, " G"], [1e6, " M"], [1e4, " k"]])
    if (n >= scale) return `${(n / (letter === " k" ? 1e3 : scale)).toPrecision(3)}${letter}`;
  return String(n);
}

function softmax(values) {
  const most = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - most));
  return powers.map((power) => power / sum(powers));
}

function shapeOf() {
  const shapes = new Map(state.network.record.plan.map((node) => [node.name, node.out]));
  return (name) => shapes.get(name);
}

// -- elements

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

function row(cells) {
  const line = element("tr");
  for (const cell of cells) {
    const td = element("td");
    td.append(cell);
    line.append(td);
  }
  return line;
}

/** A rounded count, which says the whole number where a pointer rests on it. */
function exactly(n) {
  const made = element("span", count(n));
  made.title = n.toLocaleString("en");
  return made;
}

function fill(select, options) {
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
}

/** Paint a canvas; `colour` gives red, green and blue of each pixel. */
function paint(canvas, width, height, colour) {
  Object.assign(canvas, { width, height });
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) image.data.set([...colour(i), 255], 4 * i);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** Dark to bright through one hue after another, as viridis: also without colour it grows. */
function heat(share) {
  const stops = [[16, 21, 27], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const place = Math.min(1, Math.sqrt(share)) * (stops.length - 1);
  const [low, part] = [Math.floor(place), place % 1];
  const [one, two] = [stops[low], stops[Math.min(low + 1, stops.length - 1)]];
  return one.map((value, i) => value + part * (two[i] - value));
}

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

// -- what people do

let playing = 0;

function stopPlaying() {
  clearInterval(playing);
  playing = 0;
  $("play").textContent = "▶";
  $("play").setAttribute("aria-label", "Play the steps");
}

function play() {
  if (playing) return stopPlaying();
  $("play").textContent = "❚❚";
  $("play").setAttribute("aria-label", "Stop playing");
  const next = () => {
    state.step = (state.step % state.run.length) + 1;
    draw();
    if (state.step === state.run.length) stopPlaying();
  };
  playing = setInterval(next, PLAY_MILLISECONDS);
  return next();
}

function guard(action) {
  return async (event) => {
    try {
      await action(event);
    } catch (error) {
      problem(error.message);
      $("loading").hidden = true;
    }
  };
}

window.onhashchange = guard(() => choose(asked()));
$("model").onchange = () => pick($("model").value);
$("provider").onchange = guard(() => {
  const tried = $("provider").value === "webgpu";
  $("provider-note").textContent = tried ? "The graphics processor is tried: 27 MB of onnxruntime-web are loaded first." : "";
  return choose($("model").value);
});
$("device").onchange = $("convention").onchange = () => {
  clearCompared();
  draw();
};
$("step").oninput = () => {
  stopPlaying();
  state.step = Math.min(Number($("step").value), state.run.length);
  draw();
};
$("play").onclick = play;
$("camera").onclick = guard(camera);
$("compare").onclick = guard(compare);
$("file").onchange = guard(() => $("file").files.length && open($("file").files[0]));
document.onpaste = guard((event) => {
  const file = [...event.clipboardData.files][0];
  if (file && state.network) return open(file);
});
for (const kind of ["dragover", "dragleave", "drop"])
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    const file = kind === "drop" && event.dataTransfer.files[0];
    if (file && state.network) open(file);
    else if (kind === "drop" && !file) problem("That is no file: drop a picture.");
  });

guard(start)();
