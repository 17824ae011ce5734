// Run the recorded picture of a page in Node as the page does, and print what came of it as JSON.
//
//     node exactness.mjs FOLDER NAME

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, name] = process.argv.slice(2);
const at = (path) => pathToFileURL(`${folder}/${path}`).href;
const json = (path) => JSON.parse(readFileSync(`${folder}/${path}`, "utf8"));

const { Network } = await import(at("network.js"));
const { operations } = await import(at("conventions.js"));
const { places, runSteps } = await import(at("run.js"));

const record = { ...json(`models/${name}.json`), runtime: json("page.json").runtime };
const pictures = json(`samples/${record.pictures}.json`);
// What a browser would fetch from the server.
globalThis.fetch = async (path) => new Response(readFileSync(`${folder}/${path}`));
const network = await Network.load(record, "wasm", () => {});

const pixels = Uint8Array.from(Buffer.from(pictures.pixels[record.recorded.picture], "base64"));
const steps = await runSteps(network, pixels);
const spikes = steps.map((step) =>
  Object.fromEntries(record.neurons.map(({ node, output }) => [output, places(step.spikes.get(node))])),
);
const { mean: logits, rows } = steps.at(-1);
const counted = Object.fromEntries(
  json("page.json").conventions.map((convention) => [
    convention.name,
    rows.map((row) => [row.name, operations(convention, row, record.steps)]),
  ]),
);
console.log(JSON.stringify({ spikes, logits, counted }));
