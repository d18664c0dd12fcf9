"""Network files as ONNX graphs, made from the table of layers alone. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from impasto.networks.architecture import EPSILON, IMAGES, Layer
from impasto.networks.files import NetworkFile, Weights
from impasto.networks.pyramid import SLOPE

OPSET, IR_VERSION = 17, 8
"""The version of ONNX's operators, and of its file format: those that programs of 2022 read."""

SHARES, PICTURES = "shares", "pictures"
"""The names of the second input and of the output of a whole network; the first is `IMAGES`."""


class Graph:
    """An ONNX graph that grows node by node; a value is named by a text."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray[Any, Any]] = {}
        self.inputs: list[Any] = []

    def input(self, name: str, shape: Sequence[int | str]) -> str:
        """A float input; sides that may be of any length have names."""
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def constant(self, value: Any, name: str = "") -> str:
        """A constant: an array, or whole numbers."""
        name = name or f"constant{len(self.constants)}"
        self.constants[name] = value if isinstance(value, np.ndarray) else np.array(value, np.int64)
        return name

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """A node with one output."""
        output = output or f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def model(self, outputs: dict[str, Sequence[int | str]]) -> onnx.ModelProto:
        """The finished model, with float outputs of these shapes."""
        told = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()]
        constants = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        graph = helper.make_graph(self.nodes, "impasto", self.inputs, told, constants)
        opset = [helper.make_opsetid("", OPSET)]
        model: onnx.ModelProto = helper.make_model(
            graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="impasto"
        )
        return model


def whole(network: NetworkFile) -> onnx.ModelProto:
    """A network as a graph: images and shares of styles in, pictures out.

    `images` are [N, 3, height, width] in 0..1, of any size, `shares` [N, styles], rows that sum up
    to 1; `pictures` have the shape of the images.
    """
    shape = network.transformer
    graph = Graph()
    images = graph.input(IMAGES, ["N", 3, "height", "width"])
    shares = graph.input(SHARES, ["N", len(network.styles)])
    size = graph.add("Shape", images, start=2, end=4)
    last = graph.constant([shape.stride - 1])
    stride, least = graph.constant([shape.stride]), graph.constant([shape.padded(1)])
    steps = graph.add("Div", graph.add("Add", size, last), stride)
    full = graph.add("Max", graph.add("Mul", steps, stride), least)
    missing = graph.add("Sub", full, size)
    pads = graph.add("Concat", graph.constant([0] * 6), missing, axis=0)
    x = graph.add("Pad", images, pads, mode="edge")
    outputs = {IMAGES: x}
    for layer in shape.layers:
        x = _convolved(graph, network.weights, layer, outputs[layer.reads])
        if not layer.is_last:
            x = _normalised(graph, network.weights, layer, x, shares)
            x = _activated(graph, layer, x, outputs)
        outputs[layer.name] = x
    x = _bounded(graph, x)
    begin, axes = graph.constant([0, 0]), graph.constant([2, 3])
    graph.add("Slice", x, begin, size, axes, output=PICTURES)
    return graph.model({PICTURES: ["N", 3, "height", "width"]})


def part(weights: Weights, layers: Sequence[Layer], sources: Collection[str]) -> onnx.ModelProto:
    """The last of these layers, before its normalisation, for a tile.

    layers: those to compute, in order; see `tiling.path`. Inputs are the outputs of the `sources`
    (other layers, or the image itself, called `images`), and the gain and the offset of every layer
    but the last: its normalisation over the whole picture and its style together.
    """
    graph = Graph()
    sides = {name: [f"rows of {name}", f"columns of {name}"] for name in sources}
    outputs = {name: graph.input(name, [1, "C", *sides[name]]) for name in sources}
    for layer in layers:
        x = _convolved(graph, weights, layer, outputs[layer.reads])
        if layer is not layers[-1]:
            gain, offset = (
                graph.input(f"{layer.name}.{kind}", [1, layer.outputs, 1, 1])
                for kind in ("gain", "offset")
            )
            x = graph.add("Add", graph.add("Mul", x, gain), offset)
            x = _activated(graph, layer, x, outputs)
            outputs[layer.name] = x
    if layers[-1].is_last:
        x = _bounded(graph, x)
    graph.add("Identity", x, output=PICTURES)
    return graph.model({PICTURES: [1, layers[-1].outputs, "rows", "columns"]})


def grown(network: NetworkFile) -> onnx.ModelProto:
    """A generator as a graph: noise and shares of styles in, pictures out.

    The inputs are those of `Pyramid.noises`, called `noise 32`, `noise 16`, ... by their strides,
    `noise 0` [N, channels], which is the same everywhere, and `shares` [N, styles].
    """
    graph, pyramid = Graph(), network.pyramid
    shares = graph.input(SHARES, ["N", len(network.styles)])
    axes = graph.constant([2, 3])
    noise = {
        stride: graph.input(
            noise_name(stride), ["N", channels, f"rows {stride}", f"sides {stride}"]
        )
        for stride, (channels, _) in pyramid.noises().items()
    }
    x = ""
    for step in pyramid.steps:
        if step.is_enlarged:
            x = _enlarged(graph, x, 2)
            begin, end = graph.constant([step.cut] * 2), graph.constant([-step.cut] * 2)
            x = graph.add("Slice", x, begin, end, axes)
        joined = [each for each in (x, noise[step.stride] if step.noise else "") if each]
        if step.shared:
            same = graph.input(noise_name(0), ["N", step.shared])
            joined.append(_spread(graph, graph.add("Unsqueeze", same, axes), joined))
        x = graph.add("Concat", *joined, axis=1) if joined[1:] else joined[0]
        names = [n for n in (f"{step.name}.weight", f"{step.name}.bias") if n in network.weights]
        for name in names:
            graph.constant(network.weights[name], name)
        x = graph.add("Conv", x, *names)
        if not step.is_last:
            x = graph.add(
                "LeakyRelu", _styled(graph, network.weights, step.name, x, shares), alpha=SLOPE
            )
    graph.add("Identity", _bounded(graph, x), output=PICTURES)
    return graph.model({PICTURES: ["N", 3, "height", "width"]})


def noise_name(stride: int) -> str:
    """The name of a generator's input."""
    return f"noise {stride}"


def _spread(graph: Graph, same: str, beside: Sequence[str]) -> str:
    """A value [N, channels, 1, 1] everywhere, as large as what it is put beside."""
    begin, end = graph.constant([0]), graph.constant([1])
    first = graph.add("Slice", beside[0], begin, end, graph.constant([1]))
    return graph.add("Add", graph.add("Mul", first, graph.constant(np.array(0, np.float32))), same)


def _enlarged(graph: Graph, x: str, times: int) -> str:
    scales = np.array([1, 1, times, times], np.float32)
    how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    return graph.add("Resize", x, "", graph.constant(scales), **how)


def _convolved(graph: Graph, weights: Weights, layer: Layer, x: str) -> str:
    if layer.enlarged > 1:
        x = _enlarged(graph, x, layer.enlarged)
    if border := layer.kernel // 2:
        pads = graph.constant([0, 0, border, border] * 2)
        x = graph.add("Pad", x, pads, mode="reflect")
    names = [name for name in (f"{layer.name}.weight", f"{layer.name}.bias") if name in weights]
    for name in names:
        graph.constant(weights[name], name)
    return graph.add("Conv", x, *names, strides=[layer.stride] * 2)


def _normalised(graph: Graph, weights: Weights, layer: Layer, x: str, shares: str) -> str:
    ones = graph.constant(np.ones(layer.outputs, np.float32))
    zeros = graph.constant(np.zeros(layer.outputs, np.float32))
    x = graph.add("InstanceNormalization", x, ones, zeros, epsilon=EPSILON)
    return _styled(graph, weights, layer.name, x, shares)


def _styled(graph: Graph, weights: Weights, name: str, x: str, shares: str) -> str:
    axes = graph.constant([2, 3])
    scale, shift = (
        graph.add("Unsqueeze", graph.add("MatMul", shares, graph.constant(weights[n], n)), axes)
        for n in (f"{name}.scale", f"{name}.shift")
    )
    return graph.add("Add", graph.add("Mul", x, scale), shift)


def _activated(graph: Graph, layer: Layer, x: str, outputs: Any) -> str:
    if layer.has_relu:
        return graph.add("Relu", x)
    return graph.add("Add", x, outputs[layer.adds])


def _bounded(graph: Graph, x: str) -> str:
    half, zero, one = (graph.constant(np.array(v, np.float32)) for v in (0.5, 0, 1))
    return graph.add("Clip", graph.add("Add", graph.add("Mul", x, half), half), zero, one)
