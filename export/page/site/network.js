/** A network as its exported ONNX file, one time step a call, in onnxruntime-web. */

/** The script and the WebAssembly of each build: of the processor, and of the graphics processor. */
const BUILDS = {
  wasm: ["ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"],
  webgpu: ["ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm"],
};
const STATE = ".membrane";
const NEXT = ".membrane.next";

export class Network {
  /**
   * Load a network.
   * @param {Object} record models/NAME.json, and the bytes of each file of the runtime
   * @param {"wasm" | "webgpu"} provider what computes it
   * @param {(share: number) => void} progress told the share of the files that is there
   */
  static async load(record, provider, progress) {
    const [, wasm] = BUILDS[provider];
    const total = record.bytes + record.runtime[wasm];
    const seen = (before) => (bytes) => progress((before + bytes) / total);
    const ort = await runtime(provider, record.runtime[wasm], seen(0));
    const file = await fetchWhole(`models/${record.name}.onnx`, record.bytes, seen(record.runtime[wasm]));
    const session = await ort.InferenceSession.create(file, { executionProviders: [provider] });
    return new Network(record, session, ort.Tensor);
  }

  constructor(record, session, Tensor) {
    this.Tensor = Tensor; // of the build that the session is of
    this.record = record;
    this.session = session;
    this.reset();
  }

  /** Set all membranes to zero: the next step is the first of an image. */
  reset() {
    this.states = new Map();
    for (const { name, shape } of this.session.inputMetadata) {
      if (!name.endsWith(STATE)) continue;
      const dims = shape.map((size) => (typeof size === "number" ? size : 1));
      const zeros = new Float32Array(dims.reduce((product, size) => product * size, 1));
      this.states.set(name, new this.Tensor("float32", zeros, dims));
    }
  }

  /**
   * Run one time step.
   * @param {Float32Array} input a normalised picture, or a frame of events, [C, H, W]
   * @returns {Promise<{logits: Float32Array, spikes: Map<string, Float32Array>}>} the logits of this
   *   step, and the spikes [C, H, W] of every layer of neurons by its node
   */
  async step(input) {
    const { shape } = this.session.inputMetadata.find(({ name }) => name === "images");
    const images = new this.Tensor("float32", input, [1, ...shape.slice(1)]);
    const outputs = await this.session.run({ images, ...Object.fromEntries(this.states) });
    for (const name of this.states.keys())
      this.states.set(name, outputs[name.replace(STATE, NEXT)]);
    const spikes = this.record.neurons.map(({ node, output }) => [node, outputs[output].data]);
    return { logits: outputs.logits.data, spikes: new Map(spikes) };
  }
}

/** A build of onnxruntime-web, fetched once. */
async function runtime(provider, bytes, progress) {
  const [script, wasm] = BUILDS[provider];
  const ort = await import(`./runtime/${script}`);
  ort.env.wasm.wasmBinary ??= (await fetchWhole(`runtime/${wasm}`, bytes, progress)).buffer;
  ort.env.wasm.numThreads = 1; // threads need headers that a static host does not send
  return ort;
}

/** The bytes of a file, with progress; throws a sentence where it cannot be had. */
async function fetchWhole(path, bytes, progress) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path} cannot be loaded: ${response.status} ${response.statusText}`);
  const whole = new Uint8Array(bytes);
  let done = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { value, done: ended } = await reader.read();
    if (ended) break;
    if (done + value.length > bytes) throw new Error(`${path} is longer than the ${bytes} bytes that were exported`);
    whole.set(value, done);
    done += value.length;
    progress(done);
  }
  if (done < bytes) throw new Error(`${path} has ${done} of the ${bytes} bytes that were exported`);
  return whole;
}
