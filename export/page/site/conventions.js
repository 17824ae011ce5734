/**
 * The operations that a convention counts, and what they cost: export/energy/conventions.py in a page.
 *
 * A convention is the record of page.json. `row` is a row of counts.js with the facts of its layer.
 * Operations are named by their kind, an access to memory by its size too: "access:8192".
 */

const WORD_BYTES = 4;
const QUEUE = "access:8192"; // of the events between two layers

const product = (values) => values.reduce((a, b) => a * b, 1);

/**
 * @param {Object} convention
 * @param {Object} row
 * @param {number} steps how many there were so far
 * @returns {Object<string, number>} how many of each operation
 */
export function operations(convention, row, steps) {
  const counted = {};
  const add = (kind, n) => {
    if (n) counted[kind] = (counted[kind] ?? 0) + n;
  };
  if (convention.hooks) hooks(add, row);
  else if (isWeighted(row) || row.acs) synapses(add, convention, row, steps);
  if (convention.others !== "none") {
    add("add", row.adds + row.biases * row.runs);
    add("multiply", row.multiplies * row.runs);
  }
  if (convention.others === "all") {
    add("update", row.reached);
    add("idle_update", row.updates - row.reached);
  }
  if (convention.memory) memory(add, row);
  return counted;
}

const isWeighted = ({ kind }) => kind === "conv" || kind === "linear";

function synapses(add, convention, row, steps) {
  const graded = row.inputKind === "integer";
  if (row.inputKind === "real" || (graded && convention.integers === "mac")) {
    const runs = convention.stem === "every step" || graded ? steps : row.runs;
    add("mac", runs * (convention.taps === "padded" ? row.padded : row.connections));
  } else add("ac", accumulates(convention, row));
}

function accumulates(convention, row) {
  if (convention.synapses === "rate" && row.kind !== "scale") return share(row.events, row.inputs, row.padded);
  if (convention.synapses === "fan-out" && row.kind === "conv")
    return row.events * product(row.kernel.map((k, i) => Math.ceil(k / row.stride[i]))) * row.fanOut;
  return row.acs;
}

/** events / inputs * operations to the nearest whole number, exactly. */
function share(events, inputs, operations) {
  const [e, i, o] = [events, inputs, operations].map(BigInt);
  return Number((e * o + i / 2n) / i);
}

/** What the forward hooks of syops-counter count: modules of the model, not nodes of the graph. */
function hooks(add, row) {
  const inputs = row.runs * row.inputs;
  const has = (module) => row.modules.includes(module);
  const hook = (n, spikes = true) => {
    if (spikes && row.inputKind === "binary") add("ac", share(row.events, inputs, n));
    else add("mac", n);
  };
  const biased = row.biases > 0 ? row.outputs : 0;
  if (row.kind === "conv") {
    const averages = has("SamePool");
    if (averages) hook(inputs);
    const dense = averages ? Math.floor(row.padded / product(row.kernel)) : row.padded;
    hook(row.runs * (dense + (has("BatchNorm2d") ? 0 : biased)), !averages);
    if (has("BatchNorm2d")) add("mac", 2 * row.runs * row.outputs);
  } else if (row.kind === "linear") {
    const runs = row.readOut ? 1 : row.runs;
    hook(runs * row.padded + biased, runs === row.runs);
  } else if (row.kind === "pool") hook(inputs);
  else if (row.kind === "scale" && has("BatchNorm2d")) hook(2 * inputs);
  else if (row.kind === "neuron" && !row.modules.length) add("ac", row.updates);
}

/** Accesses to memory and addresses: Lemaire et al., ICONIP 2022, equations 3 to 17. */
function memory(add, row) {
  const [weights, membranes] = [`access:${row.weightBytes}`, `access:${WORD_BYTES * row.outputs}`];
  const taps = row.fanOut * product(row.kernel);
  const isConv = row.kind === "conv";
  const biases = row.biases * row.runs;
  if (isWeighted(row) && row.inputKind === "real") {
    const dense = row.padded * row.runs;
    add(`access:${WORD_BYTES * row.inputs}`, isConv ? dense : row.runs * row.inputs);
    add(weights, dense + biases);
    add(membranes, row.outputs * row.runs);
    add("add", isConv ? row.runs * (row.inputs + row.outputs + taps) : dense);
  } else if (isWeighted(row)) {
    const reads = row.events * taps;
    add(QUEUE, row.events);
    add(weights, reads + biases);
    add(membranes, 2 * reads);
    add("mac", isConv ? 2 * row.events : 0);
    add("add", reads);
  } else if (row.kind === "neuron") {
    const states = Math.floor(row.stateBytes / (WORD_BYTES * row.outputs));
    add(`access:${row.stateBytes}`, 2 * row.updates * states);
    add(QUEUE, row.spikes);
    add("add", row.spikes); // the reset
    add("mac", row.leaks ? row.updates : 0);
  } else if (row.kind === "sum") add(membranes, 2 * row.adds);
}

/**
 * What operations cost on a device, in picojoules.
 * @param {Object<string, number>} operations
 * @param {Object<string, number[]>} prices low, typical and high of each kind that has a price
 * @returns {number[] | null} null where one of them has no price
 */
export function price(operations, prices) {
  const sum = [0, 0, 0];
  for (const [kind, n] of Object.entries(operations)) {
    if (!prices[kind]) return null;
    prices[kind].forEach((each, i) => (sum[i] += n * each));
  }
  return sum;
}
