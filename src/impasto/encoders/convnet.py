"""Networks as lists of operations: the table of layers and the computation both follow from them.

An *operation* makes one layer from one or two layers before it: a convolution, a pooling, a
rectifier or a sum. VGG is a chain of operations; in a residual network chains part and meet again
in sums. To compute some layers, only the operations that lead to them are done. Convolutions run on
the compiled kernels where these fit, and on torch elsewhere.

Two conventions of padding are known. *Symmetric*: (kernel - 1) / 2 on all sides (torchvision).
*Same*: so much in total that every stride leaves ceil(side / stride) positions, half of it at the
top and left and what is over at the bottom and right (TensorFlow). The latter depends on whether
the layer has an even number of rows, so a crop has to know the whole that it was cut from.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.device import ordinary
from impasto.encoders.base import IMAGE, Encoder, Layer, Preprocessing, shrunk
from impasto.kernels import ops
from impasto.settings import Pooling

Kind = Literal["convolution", "relu", "relu6", "pool", "sum", "same"]

_BYTES = 4  # of a float
_PANEL = 64  # channels that the compiled kernels work on at once


@dataclass(frozen=True)
class Operation:
    """Makes the layer `name` [batch, channels, height, width] from the layers `sources`.

    kernel, stride: of a convolution or pooling. groups: of a convolution. `same` gives its source
    another name.
    """

    name: str
    kind: Kind
    sources: tuple[str, ...]
    channels: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1


@dataclass(frozen=True)
class Blueprint:
    """A network without its weights; called with the path of a weights file, it loads them.

    Arguments beyond `operations` are those of `Encoder`. same: the convention of padding.
    rounds_up: see `Layer`. published: what files of its weights hold, for messages. open: makes the
    encoder from this blueprint and a path (None: the weights in the package).
    """

    name: str
    operations: tuple[Operation, ...]
    content_layer: str
    style_layers: Mapping[str, float]
    sets: Mapping[str, Mapping[str, float]]
    cut: str
    poolings: tuple[Pooling, ...]
    rounds_up: bool
    published: str
    open: Callable[[Blueprint, Path | None], ConvNet]
    same: bool = False
    shifts: int = 1

    def __call__(self, weights: Path | None = None) -> ConvNet:
        return self.open(self, weights)

    @functools.cached_property
    def table(self) -> tuple[Layer, ...]:
        """The rows of the table, the image first."""
        rows = {IMAGE: Layer(IMAGE, 3, 1, 0, self.rounds_up)}
        for operation in self.operations:
            sources = [rows[name] for name in operation.sources]
            stride = sources[0].stride
            halo = max(row.halo for row in sources) + (operation.kernel - 1) // 2 * stride
            rows[operation.name] = Layer(
                operation.name, operation.channels, stride * operation.stride, halo, self.rounds_up
            )
        return tuple(rows.values())

    @functools.cached_property
    def convolutions(self) -> dict[str, tuple[int, ...]]:
        """The shape of each convolution's weight, [out, in / groups, kernel, kernel]."""
        channels = {row.name: row.channels for row in self.table}
        return {
            operation.name: (
                operation.channels,
                channels[operation.sources[0]] // operation.groups,
                *[operation.kernel] * 2,
            )
            for operation in self.operations
            if operation.kind == "convolution"
        }


class ConvNet(Encoder):
    """A blueprint with weights, as a function from an image to the activations of layers.

    Args:
        blueprint: its operations and defaults.
        read: returns the weight and bias of a convolution, in single precision on the CPU. It is
            called when they are needed.
        preprocessing: the input that the weights were trained on.
        kept: how many bytes what `read` reads from takes.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        read: Callable[[str], tuple[Tensor, Tensor]],
        preprocessing: Preprocessing,
        kept: int = 0,
    ) -> None:
        a = blueprint
        super().__init__(
            a.table,
            content_layer=a.content_layer,
            style_layers=a.style_layers,
            sets=a.sets,
            cut=a.cut,
            poolings=a.poolings,
            shifts=a.shifts,
        )
        self.name, self.blueprint, self.preprocessing = a.name, a, preprocessing
        self.read, self.kept = read, kept
        self.operations = {operation.name: operation for operation in a.operations}
        # Shared with all encoders made `like` this one: preparing weights takes a second or two.
        self._kernels = {
            name: ops.Convolution(functools.partial(read, name))
            for name, shape in a.convolutions.items()
            if _suits_kernels(shape, self.operations[name])
        }
        self._plain: dict[object, tuple[Tensor, Tensor]] = {}

    def alias(self, name: str) -> str:
        return name

    @property
    def compiled(self) -> tuple[int, int]:
        count = len(self._kernels) if self._is_compiled() else 0
        return count, len(self.blueprint.convolutions)

    def prepare(self, layers: Iterable[str]) -> None:
        for operation in self._leading_to(map(self.layer, layers)):
            if operation.name in self._kernels and self._is_compiled():
                self._kernels[operation.name].prepare()
            elif operation.kind == "convolution":
                self._weights(operation)

    def held(self, layers: Iterable[str]) -> int:
        total = self.kept
        for operation in self._leading_to(map(self.layer, layers)):
            if operation.kind == "convolution":
                out, inside, *kernel = self.blueprint.convolutions[operation.name]
                # Compiled kernels hold 36 values for every 9, twice: forward and backward.
                copies = 8 if operation.name in self._kernels and self._is_compiled() else 1
                total += _BYTES * copies * out * (inside * kernel[0] * kernel[1] + 1)
        return total

    def __call__(
        self,
        x: Tensor,
        layers: Iterable[str],
        start: str = IMAGE,
        whole: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:
        wanted = {self.layer(name) for name in layers}
        features = {IMAGE: x} if IMAGE in wanted else {}
        wanted -= features.keys()
        operations = self._leading_to(wanted, start)
        if not operations:
            return features
        if start == IMAGE:
            x = self.preprocessing.apply(x).contiguous(memory_format=torch.channels_last)
        values = _Values(Counter(wanted) + Counter(name for o in operations for name in o.sources))
        values.put(start, x)
        rectifiers = {o.sources[0]: o.kind for o in operations if o.kind in ("relu", "relu6")}
        whole = whole or (x.shape[-2], x.shape[-1])
        for operation in operations:
            name, source = operation.name, operation.sources[0]
            once = source in values.once and source != start  # which is the caller's
            taken = [values.take(each) for each in operation.sources]
            if operation.kind == "convolution":
                # Together with its ReLU, unless the values before it are wanted.
                kind = rectifiers.get(name) if name in values.once else None
                size = self._size(start, source, whole)
                made = self._convolve(operation, taken[0], size, kind)
                values.rectified |= {name} if kind else set()
            elif operation.kind == "pool":
                made = self._pool(operation, taken[0], self._size(start, source, whole))
            elif operation.kind == "sum":
                made = taken[0] + taken[1]
            elif operation.kind == "same" or source in values.rectified:
                made = taken[0]
            else:
                made = _rectified(taken[0], operation.kind, in_place=once)
            values.put(name, made)
            if name in wanted:
                features[name] = values.take(name)
        return features

    def _size(self, start: str, layer: str, whole: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) of a layer if the start is `whole`."""
        stride = self.rows[layer].stride // self.rows[start].stride
        height, width = (shrunk(side, stride, self.blueprint.rounds_up) for side in whole)
        return height, width

    def _leading_to(self, layers: Iterable[str], start: str = IMAGE) -> list[Operation]:
        """The operations that lead from the start to these layers, in order."""
        needed, operations = set(layers), []
        for operation in reversed(self.blueprint.operations):
            if operation.name == start:
                break
            if operation.name in needed:
                operations.append(operation)
                needed.update(operation.sources)
        return operations[::-1]

    def _is_compiled(self) -> bool:
        is_single = self.device.type == "cpu" and self.dtype == torch.float32
        return is_single and bool(ops.status().ready)

    def _convolve(
        self, operation: Operation, x: Tensor, size: Sequence[int], kind: str | None
    ) -> Tensor:
        """kind: of the rectifier that follows at once, if one does."""
        if operation.name in self._kernels and ops.suits(x):
            wraps = self.padding == "circular"
            x = _wrapped(x, [(1, 1), (1, 1)]) if wraps else x
            y = self._kernels[operation.name](x, rectify=kind == "relu")
            if wraps:  # cut off the added border, which zero padding has spoiled
                y = y[..., 1:-1, 1:-1].contiguous(memory_format=torch.channels_last)
            return F.relu6(y, inplace=True) if kind == "relu6" else y
        x, padding, extra = self._padded(operation, x, size)
        weight, bias = self._weights(operation, extra)
        y = F.conv2d(x, weight, bias, operation.stride, padding, 1, operation.groups)
        return _rectified(y, kind, in_place=True) if kind else y

    def _pool(self, operation: Operation, x: Tensor, size: Sequence[int]) -> Tensor:
        if self.pooling == "avg" and operation.kernel == 2 and ops.suits(x):
            return ops.average_pool(x)
        x, padding, _ = self._padded(operation, x, size)
        if self.pooling == "max":
            y = F.max_pool2d(x, operation.kernel, operation.stride, padding)
        else:
            y = F.avg_pool2d(
                x, operation.kernel, operation.stride, padding, count_include_pad=False
            )
        return y.contiguous(memory_format=torch.channels_last)  # which torch may have lost

    def _padded(
        self, operation: Operation, x: Tensor, size: Sequence[int]
    ) -> tuple[Tensor, tuple[int, int], tuple[int, int]]:
        """x with the padding that torch cannot add itself, and the padding that it has to add.

        size: the (height, width) of the layer that x is, or was cut from. Also how many
        rows and columns of zeros the kernel has to begin with. With one more, torch's symmetric
        padding does what a larger one behind would; a depthwise convolution takes a third of the
        time so.
        """
        rows, columns = (
            self._pads(operation, whole, own)
            for whole, own in zip(size, (x.shape[-2], x.shape[-1]), strict=True)
        )
        if self.padding == "circular":
            return _wrapped(x, [rows, columns]), (0, 0), (0, 0)
        extra = rows[1] - rows[0], columns[1] - columns[0]
        if extra == (0, 0) or (operation.groups > 1 and {*extra} <= {0, 1}):
            return x, (rows[1], columns[1]), extra
        return F.pad(x, (*columns, *rows)), (0, 0), (0, 0)

    def _pads(self, operation: Operation, whole: int, own: int) -> tuple[int, int]:
        """How much to pad before and behind `own` positions that were cut from a `whole`."""
        kernel, stride = operation.kernel, operation.stride
        if not self.blueprint.same:
            return ((kernel - 1) // 2,) * 2
        before = max((-(-whole // stride) - 1) * stride + kernel - whole, 0) // 2
        return before, max((-(-own // stride) - 1) * stride + kernel - own - before, 0)

    @ordinary()  # the weights are cached: the caller's torch settings must not reach them
    def _weights(
        self, operation: Operation, extra: tuple[int, int] = (0, 0)
    ) -> tuple[Tensor, Tensor]:
        """A convolution's weight and bias for torch itself, on the encoder's device.

        extra: see `_padded`.
        """
        key = operation.name, self.device, self.dtype, extra
        if key not in self._plain:
            weight, bias = (t.to(self.device, self.dtype) for t in self.read(operation.name))
            weight = F.pad(weight, (extra[1], 0, extra[0], 0))
            # Channels-last weights need no reordering: a fifth faster on a CPU.
            self._plain[key] = weight.to(memory_format=torch.channels_last), bias
        return self._plain[key]


class _Values:
    """Activations by layer, each until its last use.

    uses: how often each is still needed. once: those that are needed once only. rectified: the
    convolutions whose ReLU is done already.
    """

    def __init__(self, uses: Counter[str]) -> None:
        self.uses, self.once = uses, {name for name, count in uses.items() if count == 1}
        self.rectified: set[str] = set()
        self.there: dict[str, Tensor] = {}

    def put(self, name: str, x: Tensor) -> None:
        self.there[name] = x

    def take(self, name: str) -> Tensor:
        """The activations of a layer, for one of its uses."""
        x = self.there.pop(name)
        self.uses[name] -= 1
        if self.uses[name]:
            apart = ops.suits(x) and not x.shape[1] % _PANEL
            x, self.there[name] = ops.fork(x) if apart else (x, x)
        return x


def _rectified(x: Tensor, kind: str, *, in_place: bool) -> Tensor:
    return F.relu(x, inplace=in_place) if kind == "relu" else F.relu6(x, inplace=in_place)


def _suits_kernels(shape: tuple[int, ...], operation: Operation) -> bool:
    """Whether the compiled kernels can compute a convolution with a weight of this shape."""
    out, inside, *kernel = shape
    fits = kernel == [3, 3] and operation.stride == operation.groups == 1
    return fits and not out % _PANEL and (inside == 3 or not inside % _PANEL)


def _wrapped(x: Tensor, pads: Sequence[tuple[int, int]]) -> Tensor:
    """Add rows and columns of the opposite side to x [batch, C, height, width]."""
    for dim, (before, behind) in zip((-2, -1), pads, strict=True):
        side = x.shape[dim]
        if max(before, behind) > side:
            at = torch.arange(-before, side + behind, device=x.device) % side
            x = x.index_select(dim, at)
        elif before or behind:
            parts = [x.narrow(dim, side - before, before), x, x.narrow(dim, 0, behind)]
            x = torch.cat(parts, dim)
    return x
