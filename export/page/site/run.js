/** A picture through all steps of a network: spikes, the answer so far, and what was counted. */

import { Counter } from "./counts.js";
import { toInputs } from "./picture.js";

/**
 * @typedef {{input: Float32Array, mean: number[], spikes: Map<string, Float32Array>, rows: Object[]}} Step
 * @param {import("./network.js").Network} network
 * @param {Uint8Array} pixels
 * @param {(run: Step[]) => boolean} seen told the steps so far; false ends the run
 * @returns {Promise<Step[]>}
 */
export async function runSteps(network, pixels, seen = () => true) {
  // A session computes one picture at a time: an older run gives up at its next step.
  const before = network.running;
  let end;
  network.running = new Promise((resolve) => (end = resolve));
  await before;
  try {
    return await run(network, pixels, seen);
  } finally {
    end();
  }
}

async function run(network, pixels, seen) {
  const { record } = network;
  const counter = new Counter(record.plan);
  const total = new Float64Array(record.data.classes.length);
  const entry = record.plan.find((node) => node.kind !== "neuron" && node.sendsEvents);
  const made = [];
  network.reset();
  for (const input of toInputs(pixels, record.data, record.steps)) {
    const { logits, spikes } = await network.step(input);
    logits.forEach((value, i) => (total[i] += value));
    const sent = entry ? new Map([...spikes, [entry.name, input]]) : spikes;
    const rows = counter.step(sent).map((row) => ({ ...row, ...record.facts[row.name] }));
    made.push({ input, mean: [...total].map((value) => value / (made.length + 1)), spikes, rows });
    if (!seen(made)) break;
  }
  return made;
}

/** How many spikes there are, the sum of their places, and that of their squares. */
export function places(train) {
  const sums = [0, 0, 0];
  train.forEach((spike, i) => {
    if (spike) [1, i + 1, (i + 1) ** 2].forEach((value, k) => (sums[k] += value));
  });
  return sums;
}
