"""Vector code for Numba, written as formulas: the innermost pieces of `loops`.

Numba compiles Python well but leaves the use of vector registers to chance. Here each innermost
piece of work is a Python function that *emits* instructions on vectors of `LANES` floats: its loops
are unrolled, and `+`, `-` and `*` are single instructions, which LLVM translates for the processor
(AVX-512, AVX2, NEON).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

_WIDE = bool(binding.get_host_cpu_features().get("avx512f"))

LANES = 16 if _WIDE else 8
"""Floats in a vector."""
PANEL = 2 * LANES
"""Columns of the product that one call of `multiply` computes."""
ROWS = 12 if _WIDE else 6
"""Rows of that product: ROWS x 2 vectors stay in registers."""

_INDEX = ir.IntType(64)
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_ZERO = ir.Constant(_VECTOR, [0.0] * LANES)
_CONTRACT = ("contract",)  # a product and a sum may become one instruction


class _Emitted:
    """A value that the emitted code will compute."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder = builder
        self.value = value


class Index(_Emitted):
    """A 64-bit integer."""

    def __add__(self, other: Index | int) -> Index:
        return Index(self.builder, self.builder.add(self.value, _whole(other)))

    def __mul__(self, other: Index | int) -> Index:
        return Index(self.builder, self.builder.mul(self.value, _whole(other)))

    __rmul__ = __mul__


class Lanes(_Emitted):
    """A vector of LANES floats."""

    def __add__(self, other: Lanes) -> Lanes:
        return Lanes(self.builder, self.builder.fadd(self.value, other.value, _CONTRACT))

    def __sub__(self, other: Lanes) -> Lanes:
        return Lanes(self.builder, self.builder.fsub(self.value, other.value, _CONTRACT))

    def __mul__(self, other: Lanes) -> Lanes:
        return Lanes(self.builder, self.builder.fmul(self.value, other.value, _CONTRACT))

    def __rmul__(self, factor: float) -> Lanes:
        return self * Lanes(self.builder, ir.Constant(_VECTOR, [float(factor)] * LANES))

    def where_positive(self, condition: Lanes) -> Lanes:
        """This vector where `condition` is above zero, zero elsewhere."""
        positive = self.builder.fcmp_ordered(">", condition.value, _ZERO)
        return Lanes(self.builder, self.builder.select(positive, self.value, _ZERO))


class Array(_Emitted):
    """Floats in memory; `array[start]` is the vector whose first float is at `start`."""

    def __getitem__(self, start: Index) -> Lanes:
        return Lanes(self.builder, self.builder.load(self._vector_at(start), align=4))

    def __setitem__(self, start: Index, vector: Lanes) -> None:
        self.builder.store(vector.value, self._vector_at(start), align=4)

    def everywhere(self, place: Index) -> Lanes:
        """A vector with the float at `place` in every lane."""
        lane = ir.IntType(32)
        nothing = ir.Constant(_VECTOR, ir.Undefined)
        value = self.builder.load(self.builder.gep(self.value, [place.value]))
        first = self.builder.insert_element(nothing, value, ir.Constant(lane, 0))
        firsts = ir.Constant(ir.VectorType(lane, LANES), [0] * LANES)
        return Lanes(self.builder, self.builder.shuffle_vector(first, nothing, firsts))

    def _vector_at(self, start: Index) -> Any:
        place = self.builder.gep(self.value, [start.value])
        return self.builder.bitcast(place, _VECTOR.as_pointer())


def _whole(number: Index | int) -> Any:
    return number.value if isinstance(number, Index) else ir.Constant(_INDEX, number)


def _kernel(emit: Callable[..., None]) -> Any:
    """Turn a function that emits code into one that Numba can call.

    `emit` receives arrays of any shape as `Array` and every other argument as `Index`.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
        def emitted(kind: Any, value: Any) -> _Emitted:
            if isinstance(kind, types.Array):
                return Array(builder, context.make_array(kind)(context, builder, value).data)
            return Index(builder, context.cast(builder, value, kind, types.int64))

        emit(*map(emitted, signature.args, values))
        return context.get_dummy_value()

    def typed(_: Any, *arguments: Any) -> tuple[Any, Any]:
        return types.void(*arguments), generate

    typed.__name__ = emit.__name__
    # Numba matches a call's arguments to the signature, which begins with the typing context.
    names = ("context", *inspect.signature(emit).parameters)
    typed.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    )
    return intrinsic(typed)


# Winograd's minimal filtering F(4x4, 3x3): Lavin & Gray 2015 (arXiv:1509.09308), section 4.3.
# These are the one-dimensional transforms; `in_two_dimensions` applies them to rows and columns.


def input_transform(d: Sequence[Any]) -> tuple[Any, ...]:
    """B^T d: from six neighbouring values to six points."""
    even1, odd1 = d[4] - 4 * d[2], d[3] - 4 * d[1]
    even2, odd2 = d[4] - d[2], 2 * (d[3] - d[1])
    return (
        4 * d[0] - 5 * d[2] + d[4],
        even1 + odd1,
        even1 - odd1,
        even2 + odd2,
        even2 - odd2,
        4 * d[1] - 5 * d[3] + d[5],
    )


def output_transform(m: Sequence[Any]) -> tuple[Any, ...]:
    """A^T m: from products at six points to four neighbouring values."""
    sum1, difference1 = m[1] + m[2], m[1] - m[2]
    sum2, difference2 = m[3] + m[4], m[3] - m[4]
    return (
        m[0] + sum1 + sum2,
        difference1 + 2 * difference2,
        sum1 + 4 * sum2,
        difference1 + 8 * difference2 + m[5],
    )


def in_two_dimensions(
    transform: Callable[[Sequence[Any]], tuple[Any, ...]], square: Sequence[Sequence[Any]]
) -> list[tuple[Any, ...]]:
    """Apply `transform` to each row of a square, then to each column; returns rows."""
    rows = [transform(row) for row in square]
    columns = [transform(column) for column in zip(*rows, strict=True)]
    return list(zip(*columns, strict=True))


def _emit_in(read, start, row, column, v, place, plane):
    d = [[read(start + i * row + j * column) for j in range(6)] for i in range(6)]
    for i, values in enumerate(in_two_dimensions(input_transform, d)):
        for j, value in enumerate(values):
            v[place + (6 * i + j) * plane] = value


@_kernel
def transform_in(x, start, row, column, v, place, plane):
    """V = B^T d B for a 6x6 patch d of x, on LANES channels; its 36 points are `plane` apart."""
    _emit_in(lambda at: x[at], start, row, column, v, place, plane)


@_kernel
def transform_masked_in(x, y, start, row, column, v, place, plane):
    """`transform_in` with x taken as zero where y is not positive: the gradient of a ReLU."""
    _emit_in(lambda at: x[at].where_positive(y[at]), start, row, column, v, place, plane)


def _emit_out(m, place, plane, finish, out, start, row, column):
    products = [[m[place + (6 * i + j) * plane] for j in range(6)] for i in range(6)]
    for i, values in enumerate(in_two_dimensions(output_transform, products)):
        for j, value in enumerate(values):
            out[start + i * row + j * column] = finish(value)


@_kernel
def transform_out(m, place, plane, out, start, row, column):
    """Write A^T M A to a 4x4 patch of out, on LANES channels."""
    _emit_out(m, place, plane, lambda value: value, out, start, row, column)


@_kernel
def transform_biased_out(m, place, plane, bias, channel, out, start, row, column):
    """A^T M A + bias."""
    b = bias[channel]
    _emit_out(m, place, plane, lambda value: value + b, out, start, row, column)


@_kernel
def transform_rectified_out(m, place, plane, bias, channel, out, start, row, column):
    """max(A^T M A + bias, 0)."""
    b = bias[channel]
    _emit_out(m, place, plane, lambda value: _relu(value + b), out, start, row, column)


def _relu(x: Lanes) -> Lanes:
    return x.where_positive(x)


@_kernel
def multiply(a, a_start, a_row, a_step, b, b_start, b_step, c, c_start, c_row, depth):
    """C [ROWS, PANEL] = A [ROWS, depth] B [depth, PANEL], with all sums in registers.

    Element (r, k) of A is a[a_start + r * a_row + k * a_step]. Row k of B begins at
    b[b_start + k * b_step], row r of C at c[c_start + r * c_row].
    """
    builder = a.builder
    entry = builder.block
    loop, done = builder.append_basic_block("loop"), builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    k = Index(builder, builder.phi(_INDEX))
    before = [[Lanes(builder, builder.phi(_VECTOR)) for _ in range(2)] for _ in range(ROWS)]
    row = b_start + k * b_step
    panel = b[row], b[row + LANES]
    column = a_start + k * a_step
    sums = []
    for r, totals in enumerate(before):
        factor = a.everywhere(column + r * a_row)
        sums.append([factor * part + total for part, total in zip(panel, totals, strict=True)])
        for total, new in zip(totals, sums[r], strict=True):
            total.value.add_incoming(_ZERO, entry)
            total.value.add_incoming(new.value, loop)
    following = k + 1
    k.value.add_incoming(ir.Constant(_INDEX, 0), entry)
    k.value.add_incoming(following.value, loop)
    builder.cbranch(builder.icmp_signed("<", following.value, depth.value), loop, done)
    builder.position_at_end(done)
    for r, (left, right) in enumerate(sums):
        c[c_start + r * c_row] = left
        c[c_start + r * c_row + LANES] = right


@_kernel
def average_four(x, start, row, column, out, target):
    """The mean of a 2x2 patch."""
    a, b, c, d = (x[start + i * row + j * column] for i in range(2) for j in range(2))
    out[target] = 0.25 * ((a + b) + (c + d))


@_kernel
def put(x, start, out, target):
    """Copy x."""
    out[target] = x[start]


@_kernel
def put_quarter(x, start, out, target):
    """A quarter of x."""
    out[target] = 0.25 * x[start]


@_kernel
def put_masked(x, mask, start, out, target):
    """x where the mask is positive, zero elsewhere."""
    out[target] = x[start].where_positive(mask[start])


@_kernel
def put_sum(x, start, y, place, out, target):
    """x + y."""
    out[target] = x[start] + y[place]


@_kernel
def put_relu(x, start, bias, channel, out, target):
    """max(x + bias, 0)."""
    out[target] = _relu(x[start] + bias[channel])
