"""Any NIR graph, ours or not, as ONNX: verified against the NIR interpreter, node by node.

    step       `input` [B, ...] and the state of every node that has one -> `output` [B, ...],
               each state's `.next`
    sequence   `input` [T, B, ...] -> `output` [T, B, ...]; a Scan of the step, from a state of
               zero, so T and B are free

`export.onnx.nir_step` says how nodes are written, and what values and states are called.
"""

from collections.abc import Iterable
from functools import partial, reduce
from pathlib import Path

import nir
import numpy as np
import onnx
from google.protobuf.message import EncodeError
from onnx import TensorProto, helper, numpy_helper

from export.metadata import Form, Metadata
from export.nir.graph import CheckedGraph, check_graph
from export.nir.interpreter import run, step_of
from export.nir.nodes import SPIKING
from export.onnx.engines import ERRORS, reason
from export.onnx.file import OPSET, read_file, read_metadata, write_verified
from export.onnx.nir_step import StepNodes, input_name
from export.onnx.runtime import Runtime
from export.verification import LayerCheck, Verification
from zoo.arrays import Array, Shape
from zoo.errors import InputError, VerificationError

__all__ = ["nir_to_onnx", "noise_spikes", "verify_nir_onnx", "write_nir_onnx"]

IR_VERSION = 10  # of that opset
STEPS, BATCH = 8, 2  # of the noise on which a file is verified
FLOAT = TensorProto.FLOAT


def write_nir_onnx(
    graph: nir.NIRGraph,
    path: str | Path,
    *,
    name: str,
    form: Form = "sequence",
    dt: float | None = None,
) -> Verification:
    """Write a NIR graph to `path` as ONNX, verified.

    Raises `ExportError` for a graph that is not sound or has no such form. Raises
    `VerificationError`, and leaves what lay at `path`, if onnxruntime computes of the file
    something else than the interpreter of the graph.
    """
    build = partial(nir_to_onnx, graph, name=name, form=form, dt=dt)
    verify = partial(verify_nir_onnx, graph, dt=dt)
    result = write_verified(Path(path), build, verify, source="graph")
    assert result is not None
    return result


def nir_to_onnx(
    graph: nir.NIRGraph, *, name: str = "graph", form: Form = "sequence", dt: float | None = None
) -> onnx.ModelProto:
    """Return the ONNX form of a graph that `export.nir.graph.check_graph` accepts.

    `dt`, in seconds, is as `check_graph` takes it. Raises `ExportError` for any other graph.
    """
    checked = check_graph(graph, dt=dt)
    step = StepNodes(checked)
    outputs = [node for node in checked.nodes if type(checked.nodes[node]) is nir.Output]
    proto = helper.make_model(
        _step_graph(step, outputs) if form == "step" else _scan_graph(step, outputs),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="danet-zoo",
    )
    metadata = Metadata.of_onnx_graph(name, form, checked.dt)
    helper.set_model_props(proto, metadata.to_strings())
    return proto


def _step_graph(step: StepNodes, outputs: list[str]) -> onnx.GraphProto:
    graph = step.graph
    next_states = {f"{name}.next": shape for name, shape in step.states.items()}
    inputs = {input_name(graph): graph.shapes[graph.entry], **step.states}
    results = {name: graph.shapes[name] for name in outputs} | next_states
    stored = list(step.stored.values())
    return helper.make_graph(step.nodes, "step", _of_batch(inputs), _of_batch(results), stored)


def _scan_graph(step: StepNodes, outputs: list[str]) -> onnx.GraphProto:
    """Return the step as the body of a Scan over the first axis.

    Its weights are the outer graph's, so that they are stored once.
    """
    graph, entry = step.graph, input_name(step.graph)
    frame = f"{entry}.now"
    body = helper.make_graph(
        step.nodes,
        "step",
        _untyped([*step.states, frame]),
        _untyped([*(f"{name}.next" for name in step.states), *outputs]),
    )
    for node in body.node:
        node.input[:] = [frame if value == entry else value for value in node.input]
    outer = _StateOfZeros(entry)
    starts = [outer.add(name, shape) for name, shape in step.states.items()]
    results = [*(f"{name}.last" for name in step.states), *outputs]
    scan = helper.make_node("Scan", [*starts, entry], results, "time", body=body, num_scan_inputs=1)
    return helper.make_graph(
        [*outer.nodes, scan],
        "sequence",
        _of_batch({entry: graph.shapes[graph.entry]}, "time"),
        _of_batch({name: graph.shapes[name] for name in outputs}, "time"),
        [*step.stored.values(), *outer.stored],
    )


def _of_batch(shapes: dict[str, Shape], *before: str) -> list[onnx.ValueInfoProto]:
    """Declare values of these shapes, with an axis for the batch, and those `before` it."""
    return [
        helper.make_tensor_value_info(name, FLOAT, [*before, "batch", *shape])
        for name, shape in shapes.items()
    ]


def _untyped(names: Iterable[str]) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, FLOAT, None) for name in names]


class _StateOfZeros:
    """The nodes before a Scan: states of zeros for as many images as there are."""

    def __init__(self, entry: str) -> None:
        self.stored = [numpy_helper.from_array(np.array([1], np.int64), "state.axis")]
        shape, axis, batch = "state.shape", "state.axis", "state.batch"
        self.nodes = [
            helper.make_node("Shape", [entry], [shape], shape),
            helper.make_node("Gather", [shape, axis], [batch], batch),
        ]

    def add(self, name: str, shape: Shape) -> str:
        """Add the first state of this name; return the name of its value."""
        dims, full, start = f"{name}.dims", f"{name}.shape", f"{name}.start"
        self.stored.append(numpy_helper.from_array(np.array(shape, np.int64), dims))
        self.nodes += [
            helper.make_node("Concat", ["state.batch", dims], [full], full, axis=0),
            helper.make_node("ConstantOfShape", [full], [start], start),
        ]
        return start


def verify_nir_onnx(
    graph: nir.NIRGraph,
    path: str | Path,
    *,
    dt: float | None = None,
    runtime: Runtime | None = None,
) -> Verification:
    """Compare the ONNX file at `path` with the interpreter of `graph`, node by node.

    The file is run on noise, of 8 steps, and every node is computed on that run's own values.
    Raises `InputError` if it is no ONNX file, `VerificationError` if it cannot even be run as this
    graph.
    """
    checked = check_graph(graph, dt=dt)
    proto = read_file(path)
    metadata = read_metadata(proto, path)
    if metadata.is_of_model:
        raise VerificationError(
            f"{path} is the export of a model, not of a NIR file: name the model in its place"
        )
    file_dt, graph_dt = metadata.dt, repr(checked.dt)
    changed: tuple[str, ...] = ()
    if file_dt not in (None, graph_dt):
        changed = (f"a time step of {file_dt} s, where the graph's is {graph_dt} s",)
    try:
        values = _run_file(proto, checked, runtime or Runtime())
    except InputError:  # of a graph that the runtime cannot compile
        raise
    # The last two are raised for a graph of more than 2 GB.
    except (*ERRORS, KeyError, ValueError, EncodeError) as error:
        raise VerificationError(f"{path} cannot be run as this graph: {reason(error)}") from None
    checks = [_compare(checked, name, values) for name in checked.nodes if name != checked.entry]
    return Verification(tuple(checks), (), changed, (BATCH,), 0, 0)


def _run_file(proto: onnx.ModelProto, graph: CheckedGraph, runtime: Runtime) -> dict[str, Array]:
    """Return the values `[T, B, ...]` of all nodes that a file computes on noise."""
    entry, x = input_name(graph), _noise(graph)
    _observe(proto.graph, graph.nodes)
    engine = runtime.load(proto.SerializeToString())
    if any(node.op_type == "Scan" for node in proto.graph.node):
        values = dict(zip(engine.outputs, engine.run(None, {entry: x}), strict=True))
    else:
        next_states = {name: f"{name}.next" for name in engine.inputs if name != entry}
        stateful = engine.start(BATCH, next_states)
        steps = [stateful.step({entry: frame}) for frame in x]
        values = {name: np.stack([step[name] for step in steps]) for name in steps[0]}
    return {name: values[name] for name in graph.nodes}


def noise_spikes(graph: nir.NIRGraph, *, dt: float | None = None) -> dict[str, int]:
    """Return the spikes of each neuron node in the interpreter, on the noise of a verification."""
    checked = check_graph(graph, dt=dt)
    values = run(graph, _noise(checked), dt=dt)
    return {
        name: int(np.count_nonzero(values[name]))
        for name, node in checked.nodes.items()
        if type(node) in SPIKING
    }


def _noise(graph: CheckedGraph) -> Array:
    """Return random numbers from 0 to 2 as the graph's input, `[T, B, ...]`."""
    shape = (STEPS, BATCH, *graph.shapes[graph.entry])
    return np.random.default_rng(0).uniform(0, 2, shape).astype(np.float32)


def _observe(graph: onnx.GraphProto, names: Iterable[str]) -> None:
    """Make the values of these names outputs, those of a Scan's body at every step."""
    outputs = {output.name for output in graph.output}
    more = _untyped(name for name in names if name not in outputs)
    for node in graph.node:
        if node.op_type == "Scan":
            body = next(attribute.g for attribute in node.attribute if attribute.name == "body")
            body.output.extend(more)
            node.output.extend(value.name for value in more)
    graph.output.extend(more)


def _compare(graph: CheckedGraph, name: str, values: dict[str, Array]) -> LayerCheck:
    """Compare a node's value in the file with what the interpreter makes of the node's inputs."""
    node = graph.nodes[name]
    inputs = reduce(np.add, (values[source] for source in graph.sources[name]))
    if type(node) is nir.Delay:
        expected = _delayed(inputs, graph.delay_steps(name))
    else:
        step = step_of(graph, name)
        expected = np.stack([step(x) for x in inputs])
    is_neuron = type(node) in SPIKING
    return LayerCheck.compare(name, values[name], expected, batch=BATCH, is_neuron=is_neuron)


def _delayed(inputs: Array, steps: Array) -> Array:
    """Return `[T, B, ...]`, each element delayed by its number of steps; zero before the start."""
    output = np.zeros_like(inputs)
    for d in np.unique(steps[steps < STEPS]):
        output[d:, :, steps == d] = inputs[: STEPS - d][:, :, steps == d]
    return output
