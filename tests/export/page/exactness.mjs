// Run the recorded picture of a page in Node as the page does, and print what came of it as JSON.
//
//     node exactness.mjs FOLDER NAME

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, name] = process.argv.slice(2);
const at = (path) => pathToFileURL(`${folder}/${path}`).href;
const json = (path) => JSON.parse(readFileSync(`${folder}/${path}`, "utf8"));

const { Network } = await import(at("network.js"));
const { Counter } = await import(at("counts.js"));
const { toInputs } = await import(at("picture.js"));

const record = json(`models/${name}.json`);
const pictures = json(`samples/${record.data.tag}.json`);
// What a browser would fetch from the server.
const ort = await import(at("runtime/ort.wasm.bundle.min.mjs"));
ort.env.wasm.wasmBinary = readFileSync(`${folder}/runtime/ort-wasm-simd-threaded.wasm`);
globalThis.fetch = async (path) => new Response(readFileSync(`${folder}/${path}`));
const network = await Network.load(record, () => {});

const pixels = Uint8Array.from(Buffer.from(pictures.pixels[record.recorded.picture], "base64"));
const counter = new Counter(record.plan);
const entry = record.plan.find((node) => node.kind !== "neuron" && node.sendsEvents);
const spikes = [];
const logits = new Array(record.data.classes.length).fill(0);
let rows;
for (const input of toInputs(pixels, record.data, record.steps)) {
  const output = await network.step(input);
  output.logits.forEach((value, i) => (logits[i] += value / record.steps));
  const sent = entry ? new Map([...output.spikes, [entry.name, input]]) : output.spikes;
  rows = counter.step(sent);
  spikes.push(
    Object.fromEntries(record.neurons.map(({ node, output: path }) => [path, output.spikes.get(node).reduce((a, b) => a + b, 0)])),
  );
}
console.log(JSON.stringify({ spikes, logits, rows }));
