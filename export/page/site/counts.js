/**
 * Exact counts of a network, step by step, from its structure and its spikes.
 *
 * The rules are those of export/energy/counting/count.py: an accumulate for every event and
 * connection that exists, sums and updates of neurons, each once a step, or once for an image where
 * they depend on a still image alone. conventions.js makes operations of them.
 *
 * Maps are flat arrays in the order [C, H, W].
 */

/**
 * A row of the report. `runs` is how often it was computed; all else are sums over the steps so far.
 * @typedef {{name: string, kind: string, runs: number, acs: number, events: number, adds: number,
 *   spikes: number, updates: number, reached: number}} Row
 */

const size = ([channels, height, width]) => channels * height * width;
const total = (values) => values.reduce((sum, value) => sum + value, 0);

export class Counter {
  /** @param {Object[]} nodes the records of export/page/plan.py */
  constructor(nodes) {
    this.nodes = nodes;
    this.byName = new Map(nodes.map((node) => [node.name, node]));
    this.fans = new Map(nodes.filter((node) => node.window).map((node) => [node.name, new Fan(node)]));
    this.reset();
  }

  /** Forget all steps: the next one is the first of an image. */
  reset() {
    this.steps = 0;
    /** @type {Map<string, Row>} */
    this.rows = new Map();
  }

  /**
   * Count one more step.
   * @param {Map<string, ArrayLike<number>>} spikes what every source of events sends at this step
   * @returns {Row[]} the rows over all steps so far
   */
  step(spikes) {
    const step = new Step(this, spikes);
    for (const node of this.nodes) {
      if (node.terms.length > 1) this.#add(`${node.name}_sum`, "sum", step.ofSum(node));
      const counts = step.of(node);
      if (counts) this.#add(node.name, node.kind, counts);
    }
    this.steps += 1;
    return [...this.rows.values()];
  }

  #add(name, kind, counts) {
    const none = { runs: 0, acs: 0, events: 0, adds: 0, spikes: 0, updates: 0, reached: 0 };
    const row = this.rows.get(name) ?? { name, kind, ...none };
    for (const [key, n] of Object.entries(counts)) row[key] += n;
    this.rows.set(name, row);
  }
}

/** The counts of one step; values that several layers read are computed once. */
class Step {
  constructor(counter, spikes) {
    this.counter = counter;
    this.spikes = spikes;
    this.first = counter.steps === 0;
    this.sums = new Map();
    this.reached = new Map();
  }

  /** How often a layer is computed at this step: one that a still image feeds, only at the first. */
  runs(node) {
    return !node.static || this.first ? 1 : 0;
  }

  ofSum(node) {
    const [terms, runs] = [node.terms.slice(1), this.runs(node)];
    const events = () => total(terms.map((term) => total(this.elements(term))));
    return { runs, adds: node.readsSpikes ? events() : runs * size(node.in) * terms.length };
  }

  of(node) {
    const runs = this.runs(node);
    const fan = this.counter.fans.get(node.name);
    const events = () => total(this.elements(node.sources));
    switch (node.kind) {
      case "conv":
      case "linear":
        if (!node.readsSpikes) return { runs };
        return { runs, acs: fan.connectionsOf(this.elements(node.sources)), events: events() };
      case "pool":
        if (!node.readsSpikes) return { runs, adds: runs * (node.connections - size(node.out)) };
        return { runs, adds: total(fan.pooled(this.elements(node.sources))), events: node.bound === 1 ? events() : 0 };
      case "scale":
        return node.readsSpikes ? { runs, acs: events(), events: events() } : { runs };
      case "neuron": {
        const updates = size(node.out);
        const reached = node.driven ? updates : this.arrivals(node.sources).count(updates);
        return { runs: 1, updates, reached, spikes: total(this.spikes.get(node.name)) };
      }
      default:
        return null;
    }
  }

  /** The sum of the events of several sources at each element. */
  elements(sources) {
    const key = sources.join(" ");
    if (!this.sums.has(key)) {
      const [first, ...others] = sources.map((source) => this.element(source));
      const sum = others.length ? Float64Array.from(first) : first;
      for (const other of others) for (let i = 0; i < sum.length; i++) sum[i] += other[i];
      this.sums.set(key, sum);
    }
    return this.sums.get(key);
  }

  element(name) {
    const node = this.counter.byName.get(name);
    if (node.sendsEvents) return this.spikes.get(name);
    const incoming = this.elements(node.sources);
    return node.kind === "pool" ? this.counter.fans.get(name).pooled(incoming) : incoming;
  }

  /** Where an event comes out of any of the sources. */
  arrivals(sources) {
    return sources.map((source) => this.arrives(source)).reduce((one, two) => one.or(two));
  }

  arrives(name) {
    if (!this.reached.has(name)) {
      const node = this.counter.byName.get(name);
      const isEvents = node.sendsEvents || ((node.kind === "pool" || node.kind === "pass") && node.readsSpikes);
      const places = isEvents ? Places.of(this.element(name), node.out) : this.passedOn(node);
      this.reached.set(name, places);
    }
    return this.reached.get(name);
  }

  passedOn(node) {
    const fan = this.counter.fans.get(node.name);
    const events = node.readsSpikes
      ? Places.of(this.elements(node.sources), node.in)
      : this.arrivals(node.sources);
    return fan ? fan.reach(events) : events;
  }
}

/** Places where something arrives; one channel stands for all where they are alike. */
class Places {
  constructor(data, [channels, height, width]) {
    Object.assign(this, { data, channels, height, width });
  }

  static of(values, shape) {
    return new Places(Uint8Array.from(values, (value) => (value > 0 ? 1 : 0)), shape);
  }

  /** How many of so many neurons they are. */
  count(neurons) {
    return total(this.data) * (neurons / this.data.length);
  }

  get area() {
    return this.height * this.width;
  }

  /** The same places, any of the channels in one. */
  any() {
    if (this.channels === 1) return this;
    const data = new Uint8Array(this.area);
    for (let i = 0; i < this.data.length; i++) data[i % this.area] |= this.data[i];
    return new Places(data, [1, this.height, this.width]);
  }

  /** The same places in so many channels. */
  widened(channels) {
    if (this.channels === channels) return this;
    const data = new Uint8Array(channels * this.area);
    for (let channel = 0; channel < channels; channel++) data.set(this.data, channel * this.area);
    return new Places(data, [channels, this.height, this.width]);
  }

  or(other) {
    const channels = Math.max(this.channels, other.channels);
    const [one, two] = [this.widened(channels).data, other.widened(channels).data];
    return new Places(one.map((value, i) => value | two[i]), [channels, this.height, this.width]);
  }
}

/** The connections of a convolution, a matrix or a pool. */
class Fan {
  constructor(node) {
    const [[kernelHeight], [kernelWidth]] = node.window;
    Object.assign(this, { node, kernelHeight, kernelWidth });
    this.rows = taps(node.window[0], node.in[1], node.out[1]);
    this.columns = taps(node.window[1], node.in[2], node.out[2]);
    this.outputs = node.out[0] / node.groups; // channels that an input channel reaches
    this.inputs = node.in[0] / node.groups; // channels that an output channel reads
    this.lacking = new Map(); // output channel -> [input channel of its group, row and column of the kernel]
    for (const place of node.missing) {
      const [output, input, row, column] = unravel(place, [this.inputs, kernelHeight, kernelWidth]);
      if (!this.lacking.has(output)) this.lacking.set(output, []);
      this.lacking.get(output).push([input, row, column]);
    }
  }

  /** How many weights events meet, by their value. */
  connectionsOf(events) {
    const [channels, height, width] = this.node.in;
    let sum = 0;
    for (let i = 0, c = 0; c < channels; c++)
      for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++, i++)
          if (events[i]) sum += events[i] * this.rows.counts[y] * this.columns.counts[x];
    sum *= this.outputs;
    for (const [output, weights] of this.lacking)
      for (const [input, row, column] of weights)
        this.#eachOutput(row, column, (y, x) => {
          sum -= events[(this.#channel(output, input) * height + y) * width + x];
        });
    return sum;
  }

  /** The sums of a pool. */
  pooled(events) {
    const [channels, outHeight, outWidth] = this.node.out;
    const [, height, width] = this.node.in;
    const sums = new Float64Array(size(this.node.out));
    for (let c = 0; c < channels; c++)
      for (let row = 0; row < this.kernelHeight; row++)
        for (let column = 0; column < this.kernelWidth; column++)
          this.#eachOutput(row, column, (y, x, outY, outX) => {
            sums[(c * outHeight + outY) * outWidth + outX] += events[(c * height + y) * width + x];
          });
    return sums;
  }

  /** Which outputs any of the places reaches. */
  reach(places) {
    if (this.node.groups > 1) return this.#reachOf([...Array(this.node.out[0]).keys()], places, 0);
    const any = this.#reachAny(places.any());
    if (!this.lacking.size) return any;
    return this.#reachOf([...this.lacking.keys()], places, any.widened(this.node.out[0]));
  }

  #reachAny(places) {
    const [, outHeight, outWidth] = this.node.out;
    const reached = new Uint8Array(outHeight * outWidth);
    for (let row = 0; row < this.kernelHeight; row++)
      for (let column = 0; column < this.kernelWidth; column++)
        this.#eachOutput(row, column, (y, x, outY, outX) => {
          reached[outY * outWidth + outX] |= places.data[y * places.width + x];
        });
    return new Places(reached, [1, outHeight, outWidth]);
  }

  /** The same for these output channels, weight by weight; the others are as in `known`. */
  #reachOf(outputs, places, known) {
    const [channels, outHeight, outWidth] = this.node.out;
    const data = known ? known.data.slice() : new Uint8Array(channels * outHeight * outWidth);
    const wide = places.widened(this.node.in[0]);
    for (const output of outputs) {
      const lacks = new Set((this.lacking.get(output) ?? []).map(String));
      const reached = data.subarray(output * outHeight * outWidth, (output + 1) * outHeight * outWidth);
      reached.fill(0);
      for (let input = 0; input < this.inputs; input++) {
        const start = this.#channel(output, input) * wide.area;
        for (let row = 0; row < this.kernelHeight; row++)
          for (let column = 0; column < this.kernelWidth; column++) {
            if (lacks.has(String([input, row, column]))) continue;
            this.#eachOutput(row, column, (y, x, outY, outX) => {
              reached[outY * outWidth + outX] |= wide.data[start + y * wide.width + x];
            });
          }
      }
    }
    return new Places(data, this.node.out);
  }

  #channel(output, input) {
    return Math.floor(output / this.outputs) * this.inputs + input;
  }

  #eachOutput(row, column, visit) {
    const [ys, xs] = [this.rows.reads[row], this.columns.reads[column]];
    for (let outY = 0; outY < ys.length; outY++) {
      if (ys[outY] < 0) continue;
      for (let outX = 0; outX < xs.length; outX++)
        if (xs[outX] >= 0) visit(ys[outY], xs[outX], outY, outX);
    }
  }
}

/**
 * One axis of a kernel: the input that each of its taps reads for each output, -1 for padding, and
 * how many taps meet each input.
 */
function taps([kernel, stride, begin, dilation], inputs, outputs) {
  const reads = Array.from({ length: kernel }, (_, tap) =>
    Array.from({ length: outputs }, (_, output) => {
      const input = output * stride - begin + tap * dilation;
      return input < inputs ? input : -1;
    }),
  );
  const counts = new Array(inputs).fill(0);
  for (const input of reads.flat()) if (input >= 0) counts[input] += 1;
  return { reads, counts };
}

function unravel(index, shape) {
  const places = [];
  for (const length of [...shape].reverse()) {
    places.unshift(index % length);
    index = Math.floor(index / length);
  }
  return [index, ...places];
}
