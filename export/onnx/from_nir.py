"""Any NIR graph, ours or not, as ONNX: verified against the NIR interpreter, node by node.

    step       `input` [B, ...] and the state of every node that has one -> `output` [B, ...], each state's `.next`
    sequence   `input` [T, B, ...] -> `output` [T, B, ...]; a Scan of the step, from a state of zero, so T and B are free

A value has its NIR node's name. States: `<node>.membrane` and `<node>.synapse` `[B, ...]`, and of a
Delay `<node>.past` `[B, D, ...]`, its last D inputs, the latest first. Equations and rounding are
those of `export.nir.interpreter`.
"""

import math
from functools import partial, reduce
from pathlib import Path
from typing import Any, Literal

import nir
import numpy as np
import onnx
from google.protobuf.message import EncodeError
from onnx import TensorProto, helper, numpy_helper

import zoo
from export.nir.graph import CheckedGraph, check_graph
from export.nir.interpreter import run, step_of
from export.nir.modules import euler
from export.nir.nodes import CONVS, POOLS
from export.onnx.engines import ERRORS, reason
from export.onnx.file import OPSET, described, read_file, write_verified
from export.onnx.runtime import Runtime
from export.verification import LayerCheck, Verification
from zoo.errors import InputError, VerificationError

__all__ = ["nir_to_onnx", "noise_spikes", "verify_nir_onnx", "write_nir_onnx"]

IR_VERSION = 10  # of that opset
STEPS, BATCH = 8, 2  # of a verification
Array = np.ndarray[Any, np.dtype[Any]]
Form = Literal["sequence", "step"]
FLOAT = TensorProto.FLOAT
SPIKING = (nir.LIF, nir.IF, nir.CubaLIF, nir.Threshold)


def write_nir_onnx(
    graph: nir.NIRGraph,
    path: str | Path,
    *,
    name: str,
    form: Form = "sequence",
    dt: float | None = None,
) -> Verification:
    """Write `path`, verified. Raises `ExportError` for a graph that is not sound or has no such
    form, and `VerificationError`, and leaves what lay there, if onnxruntime does not compute of the
    file what the interpreter does of the graph.
    """
    build = partial(nir_to_onnx, graph, name=name, form=form, dt=dt)
    result = write_verified(Path(path), build, partial(verify_nir_onnx, graph, dt=dt), of="graph")
    assert result is not None
    return result


def nir_to_onnx(
    graph: nir.NIRGraph, *, name: str = "graph", form: Form = "sequence", dt: float | None = None
) -> onnx.ModelProto:
    """The ONNX form of a graph whose nodes `export.nir.graph` accepts.

    `dt`, in seconds, is as `export.nir.graph.flow` takes it. Raises `ExportError`.
    """
    ready = check_graph(graph, dt=dt)
    body = _Body(ready)
    wanted = [node for node in ready.nodes if type(ready.nodes[node]) is nir.Output]
    made = _step(body, wanted) if form == "step" else _scan(body, wanted)
    opset = [helper.make_opsetid("", OPSET)]
    proto = helper.make_model(
        made, opset_imports=opset, ir_version=IR_VERSION, producer_name="danet-zoo"
    )
    helper.set_model_props(
        proto, {"name": name, "form": form, "dt": repr(ready.dt), "zoo_version": zoo.__version__}
    )
    return proto


def verify_nir_onnx(
    graph: nir.NIRGraph,
    path: str | Path,
    *,
    dt: float | None = None,
    runtime: Runtime | None = None,
) -> Verification:
    """Run the file at `path` on random numbers, and every node of `graph` in the interpreter on
    that run's own values; compare.

    A file of the `step` form is run so many times. Raises `InputError` if it is no ONNX file,
    `VerificationError` if it cannot even be run as this graph.
    """
    ready = check_graph(graph, dt=dt)
    entry = _value(ready.entry, "in")
    x = _noise(ready)
    proto = read_file(path)
    step = described(proto).get("dt", repr(ready.dt))
    altered = (
        ()
        if step == repr(ready.dt)
        else (f"a time step of {step} s, where the graph's is {ready.dt!r} s",)
    )
    try:
        _observe(proto.graph, [_value(name) for name in ready.nodes])
        engine = (runtime or Runtime()).load(proto.SerializeToString())
        states = {name: f"{name}.next" for name in engine.inputs if name != entry}
        if any(node.op_type == "Scan" for node in proto.graph.node):
            found = dict(zip(engine.outputs, engine.run(None, {entry: x}), strict=True))
        else:
            stream = engine.stream(BATCH, states)
            steps = [stream.step({entry: frame}) for frame in x]
            found = {name: np.stack([step[name] for step in steps]) for name in steps[0]}
        values = {name: found[_value(name)] for name in ready.nodes}
    except InputError:  # the runtime's, not the file's
        raise
    except (*ERRORS, KeyError, ValueError, EncodeError) as error:  # the last two: of more than 2 GB
        raise VerificationError(f"{path} cannot be run as this graph: {reason(error)}") from None
    lines = [_line(ready, name, values) for name in ready.nodes if name != ready.entry]
    return Verification(tuple(lines), (), altered, (BATCH,), 0, 0)


def noise_spikes(graph: nir.NIRGraph, *, dt: float | None = None) -> dict[str, int]:
    """How often the neurons of each node fire in the interpreter, on the random numbers of a
    verification.
    """
    ready = check_graph(graph, dt=dt)
    values = run(graph, _noise(ready), dt=dt)
    return {
        name: int(np.count_nonzero(values[name]))
        for name, node in ready.nodes.items()
        if type(node) in SPIKING
    }


def _noise(ready: CheckedGraph) -> Array:
    """Random numbers from 0 to 2, `[T, B, ...]`."""
    return (
        np.random.default_rng(0)
        .uniform(0, 2, (STEPS, BATCH, *ready.shapes[ready.entry]))
        .astype(np.float32)
    )


def _observe(graph: onnx.GraphProto, names: list[str]) -> None:
    """Make the values of these names outputs, those of a Scan's body at every step."""
    known = {output.name for output in graph.output}
    more = [helper.make_tensor_value_info(name, FLOAT, None) for name in names if name not in known]
    for node in graph.node:
        if node.op_type == "Scan":
            body = next(attribute.g for attribute in node.attribute if attribute.name == "body")
            body.output.extend(more)
            node.output.extend(value.name for value in more)
    graph.output.extend(more)


def _line(ready: CheckedGraph, name: str, values: dict[str, Array]) -> LayerCheck:
    given = reduce(np.add, (values[source] for source in ready.sources[name]))
    if type(ready.nodes[name]) is nir.Delay:
        back = ready.delay_steps(name)
        expected = np.zeros_like(given)
        for d in np.unique(back[back < STEPS]):
            expected[d:, :, back == d] = given[: STEPS - d][:, :, back == d]
    else:
        step = step_of(ready, name)
        expected = np.stack([step(x) for x in given])
    found, spiking = values[name], type(ready.nodes[name]) in SPIKING
    differ = int((found != expected).sum())
    deviation = (
        float(np.abs(found - expected).max() / max(float(expected.std()), 1e-12))
        if not spiking and differ
        else 0.0
    )
    fired = int(np.count_nonzero(found)) if spiking else 0
    return LayerCheck(name, spiking, BATCH, found.size, differ if spiking else 0, deviation, fired)


class _Body:
    """The nodes of one time step, under construction."""

    def __init__(self, ready: CheckedGraph) -> None:
        self.flow = ready
        self.nodes: list[onnx.NodeProto] = []
        self.stored: dict[str, onnx.TensorProto] = {}
        self.states: dict[str, tuple[int, ...]] = {}  # without the batch
        self.sums: dict[str, str] = {}  # by who reads them
        delays = [name for name, node in ready.nodes.items() if type(node) is nir.Delay]
        for name in ready.nodes:
            if name == ready.entry:
                self.op("Identity", [_value(name, "in")], _value(name))
            elif name in delays:
                self.past(name)
            else:
                self.add(name)
        for name in delays:  # what they read may be made after they are read
            self.remember(name)

    def op(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def constant(self, name: str, values: Any, dtype: Any = np.float32) -> str:
        self.stored[name] = numpy_helper.from_array(np.array(values, dtype, order="C"), name)
        return name

    def spread(self, name: str, values: Any) -> str:
        """A number for each element of a value, stored once where it is the same along an axis."""
        found = np.asarray(values)
        for axis in range(found.ndim):
            if (found == found.take([0], axis)).all():
                found = found.take([0], axis)
        return self.constant(name, found)

    def reads(self, name: str) -> str:
        """The sum of what a node reads, in the order of the edges."""
        if name not in self.sums:
            total, *others = (_value(source) for source in self.flow.sources[name])
            for i, other in enumerate(others):
                total = self.op("Add", [total, other], f"{_value(name)}/sum{i}")
            self.sums[name] = total
        return self.sums[name]

    def add(self, name: str) -> None:
        node: Any = self.flow.nodes[name]
        x, out = self.reads(name), _value(name)
        match node:
            case nir.Input() | nir.Output():
                self.op("Identity", [x], out)
            case nir.Flatten():
                self.op(
                    "Reshape",
                    [x, self.constant(f"{out}/shape", (-1, *self.flow.shapes[name]), np.int64)],
                    out,
                )
            case nir.Scale():
                self.op("Mul", [self.spread(f"{out}/scale", node.scale), x], out)
            case nir.Threshold():
                self.spikes(x, self.spread(f"{out}/threshold", node.threshold), out)
            case nir.Affine() | nir.Linear():
                self.matrix(name, node, x)
            case nir.I() | nir.IF():
                self.neuron(name, node, x, None, node.r)
            case nir.LI() | nir.LIF():
                self.neuron(name, node, x, node.tau, node.v_leak)
            case nir.CubaLI() | nir.CubaLIF():
                constants = euler(
                    name, self.flow.dt, node.tau_syn, node.w_in, np.zeros_like(node.w_in)
                )
                current = self.integrate(name, "synapse", x, *constants)
                self.op("Identity", [current], f"{out}.synapse.next")
                self.neuron(name, node, current, node.tau_mem, node.v_leak)
            case _ if type(node) in POOLS:
                self.pool(name, node, x)
            case _ if type(node) in CONVS:
                self.convolution(name, node, x)

    def integrate(self, name: str, state: str, x: str, keep: Any, gain: Any, drive: Any) -> str:
        """`keep * state + (gain * x + drive)`, in that order of rounding."""
        out = _value(name)
        self.states[f"{out}.{state}"] = self.flow.shapes[name]
        named = {"keep": keep, "gain": gain, "drive": drive}
        keep, gain, drive = (
            self.spread(f"{out}/{state}/{key}", value) for key, value in named.items()
        )
        kept = self.op("Mul", [keep, f"{out}.{state}"], f"{out}/{state}/kept")
        driven = self.op(
            "Add",
            [self.op("Mul", [gain, x], f"{out}/{state}/gained"), drive],
            f"{out}/{state}/driven",
        )
        return self.op("Add", [kept, driven], f"{out}/{state}/now")

    def neuron(self, name: str, node: Any, x: str, tau: Array | None, leak: Array) -> None:
        out = _value(name)
        v = self.integrate(name, "membrane", x, *euler(name, self.flow.dt, tau, node.r, leak))
        if not hasattr(node, "v_threshold"):
            self.op("Identity", [v], out)
            self.op("Identity", [v], f"{out}.membrane.next")
            return
        fired = self.spikes(v, self.spread(f"{out}/threshold", node.v_threshold), out)
        self.op(
            "Where", [fired, self.spread(f"{out}/reset", node.v_reset), v], f"{out}.membrane.next"
        )

    def spikes(self, v: str, threshold: str, out: str) -> str:
        fired = self.op("Greater", [v, threshold], f"{out}/fired")
        self.op("Cast", [fired], out, to=FLOAT)
        return fired

    def matrix(self, name: str, node: Any, x: str) -> None:
        out = _value(name)
        if node.weight.ndim == 2:
            product = self.op(
                "MatMul", [x, self.constant(f"{out}/weight", node.weight.T)], f"{out}/product"
            )
        else:
            last = self.constant(f"{out}/last", [-1], np.int64)
            column = self.op("Unsqueeze", [x, last], f"{out}/column")
            columns = self.op(
                "MatMul", [self.constant(f"{out}/weight", node.weight), column], f"{out}/columns"
            )
            product = self.op("Squeeze", [columns, last], f"{out}/product")
        bias = getattr(node, "bias", None)
        if bias is None:
            self.op("Identity", [product], out)
        else:
            self.op("Add", [product, self.constant(f"{out}/bias", bias)], out)

    def convolution(self, name: str, node: Any, x: str) -> None:
        out, kernel = _value(name), node.weight.shape[2:]
        begins = ends = node.padding
        if node.padding == "same":  # as torch pads
            reach = [d * (k - 1) for d, k in zip(node.dilation, kernel, strict=True)]
            begins, ends = [r // 2 for r in reach], [r - r // 2 for r in reach]
        weights = [
            self.constant(f"{out}/weight", node.weight),
            self.constant(f"{out}/bias", node.bias),
        ]
        self.op(
            "Conv",
            [x, *weights],
            out,
            strides=node.stride,
            dilations=node.dilation,
            group=node.groups,
            pads=[*begins, *ends],
        )

    def pool(self, name: str, node: Any, x: str) -> None:
        """As a convolution of each channel: the sum of spikes stays a whole number."""
        out, channels = _value(name), self.flow.shapes[name][0]
        ones = self.constant(f"{out}/ones", np.ones((channels, 1, *node.kernel_size)))
        average = type(node) is nir.AvgPool2d
        summed = self.op(
            "Conv",
            [x, ones],
            f"{out}/sums" if average else out,
            group=channels,
            strides=node.stride,
            pads=[*node.padding] * 2,
        )
        if average:
            self.op("Div", [summed, self.constant(f"{out}/area", math.prod(node.kernel_size))], out)

    def past(self, name: str) -> None:
        """A Delay's output, of its past inputs; where it delays by no step, of its input, which is
        then made before.
        """
        out, back = _value(name), self.flow.delay_steps(name)
        depth, shape = int(back.max(initial=0)), self.flow.shapes[name]
        if depth:
            self.states[f"{out}.past"] = (depth, *shape)
        chosen = self.reads(name) if (back == 0).any() else ""
        for d in np.unique(back[back > 0]):
            index = self.constant(f"{out}/step{d}", d - 1, np.int64)
            then = self.op("Gather", [f"{out}.past", index], f"{out}/back{d}", axis=1)
            if chosen:
                mask = self.constant(f"{out}/mask{d}", back == d, np.bool_)
                then = self.op("Where", [mask, then, chosen], f"{out}/upto{d}")
            chosen = then
        self.op("Identity", [chosen], out)

    def remember(self, name: str) -> None:
        out = _value(name)
        if f"{out}.past" not in self.states:
            return
        depth = self.states[f"{out}.past"][0]
        x = self.reads(name)
        one = self.constant(f"{out}/one", [1], np.int64)
        newest = self.op("Unsqueeze", [x, one], f"{out}/newest")
        if depth == 1:
            self.op("Identity", [newest], f"{out}.past.next")
            return
        bounds = [
            self.constant(f"{out}/{key}", [v], np.int64)
            for key, v in (("from", 0), ("to", depth - 1))
        ]
        kept = self.op("Slice", [f"{out}.past", *bounds, one], f"{out}/kept")
        self.op("Concat", [newest, kept], f"{out}.past.next", axis=1)


def _value(name: str, what: str = "") -> str:
    """The ONNX name of a node's value; `in` is what the graph's Input is given."""
    return f"{name}.{what}" if what else name


def _step(body: _Body, wanted: list[str]) -> onnx.GraphProto:
    ready = body.flow
    inputs = [
        helper.make_tensor_value_info(
            _value(ready.entry, "in"), FLOAT, ["batch", *ready.shapes[ready.entry]]
        )
    ]
    inputs += [
        helper.make_tensor_value_info(name, FLOAT, ["batch", *shape])
        for name, shape in body.states.items()
    ]
    outputs = [
        helper.make_tensor_value_info(_value(name), FLOAT, ["batch", *ready.shapes[name]])
        for name in wanted
    ]
    outputs += [
        helper.make_tensor_value_info(f"{name}.next", FLOAT, ["batch", *shape])
        for name, shape in body.states.items()
    ]
    return helper.make_graph(body.nodes, "step", inputs, outputs, list(body.stored.values()))


def _scan(body: _Body, wanted: list[str]) -> onnx.GraphProto:
    """The step as the body of a Scan over the first axis. Its weights are the outer graph's, so
    that they are stored once.
    """
    ready, entry = body.flow, _value(body.flow.entry, "in")
    shape = ready.shapes[ready.entry]
    carried = list(body.states.items())
    before = [*(name for name, _ in carried), f"{entry}.now"]
    after = [*(f"{name}.next" for name, _ in carried), *map(_value, wanted)]
    untyped = [
        [helper.make_tensor_value_info(name, FLOAT, None) for name in names]
        for names in (before, after)
    ]
    inner = helper.make_graph(body.nodes, "step", untyped[0], untyped[1])
    for node in inner.node:
        node.input[:] = [f"{entry}.now" if value == entry else value for value in node.input]
    outer = _Outer(entry)
    starts = [outer.zeros(name, dims) for name, dims in carried]
    outputs = [f"{name}.last" for name, _ in carried] + [_value(name) for name in wanted]
    scan = helper.make_node(
        "Scan", [*starts, entry], outputs, "time", body=inner, num_scan_inputs=1
    )
    return helper.make_graph(
        [*outer.nodes, scan],
        "sequence",
        [helper.make_tensor_value_info(entry, FLOAT, ["time", "batch", *shape])],
        [
            helper.make_tensor_value_info(
                _value(name), FLOAT, ["time", "batch", *ready.shapes[name]]
            )
            for name in wanted
        ],
        [*body.stored.values(), *outer.stored],
    )


class _Outer:
    """What comes before a Scan: a state of zeros for as many images as there are."""

    def __init__(self, entry: str) -> None:
        self.stored = [numpy_helper.from_array(np.array([1], np.int64), "state.axis")]
        self.nodes = [
            helper.make_node("Shape", [entry], ["state.shape"], "state.shape"),
            helper.make_node(
                "Gather", ["state.shape", "state.axis"], ["state.batch"], "state.batch"
            ),
        ]

    def zeros(self, name: str, dims: tuple[int, ...]) -> str:
        self.stored.append(numpy_helper.from_array(np.array(dims, np.int64), f"{name}.dims"))
        self.nodes.append(
            helper.make_node(
                "Concat",
                ["state.batch", f"{name}.dims"],
                [f"{name}.shape"],
                f"{name}.shape",
                axis=0,
            )
        )
        self.nodes.append(
            helper.make_node(
                "ConstantOfShape", [f"{name}.shape"], [f"{name}.start"], f"{name}.start"
            )
        )
        return f"{name}.start"
