"""Vector code for Numba, written as formulas: the innermost loops of `kernels`.

Numba compiles Python well but leaves the use of vector registers to chance. Here each innermost
piece of work is a Python function that *emits* instructions on vectors of `LANES` floats: loops
in it are unrolled, `+`, `-` and `*` are single instructions, and what LLVM then makes of them
fits the machine at hand (AVX-512, AVX2, NEON).
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
"""Columns of a product that `multiply` works on at once."""
ROWS = 12 if _WIDE else 6
"""Rows of a product that `multiply` works on at once: ROWS x 2 vectors stay in registers."""

_INDEX = ir.IntType(64)
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_ZERO = ir.Constant(_VECTOR, [0.0] * LANES)


class Lanes:
    """A vector of floats that is not computed here but by the code being emitted."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder = builder
        self.value = value

    def __add__(self, other: Lanes) -> Lanes:
        return self._emit("fadd", other)

    def __sub__(self, other: Lanes) -> Lanes:
        return self._emit("fsub", other)

    def __rmul__(self, factor: float) -> Lanes:
        return self._emit("fmul", factor)

    def where_positive(self, condition: Lanes) -> Lanes:
        """This where `condition` is above zero, zero elsewhere."""
        positive = self.builder.fcmp_ordered(">", condition.value, _ZERO)
        return Lanes(self.builder, self.builder.select(positive, self.value, _ZERO))

    def _emit(self, operation: str, other: Lanes | float) -> Lanes:
        if isinstance(other, Lanes):
            operand = other.value
        else:
            operand = ir.Constant(_VECTOR, [float(other)] * LANES)
        emit = getattr(self.builder, operation)
        return Lanes(self.builder, emit(self.value, operand, ("contract",)))


def _load(builder: Any, array: Any, index: Any) -> Lanes:
    return Lanes(builder, builder.load(_pointer(builder, array, index), align=4))


def _store(builder: Any, array: Any, index: Any, vector: Lanes) -> None:
    builder.store(vector.value, _pointer(builder, array, index), align=4)


def _pointer(builder: Any, array: Any, index: Any) -> Any:
    return builder.bitcast(builder.gep(array, [index]), _VECTOR.as_pointer())


def _at(builder: Any, start: Any, *steps: tuple[int, Any]) -> Any:
    """The index start + sum of n * step."""
    for n, step in steps:
        start = builder.add(start, builder.mul(ir.Constant(_INDEX, n), step))
    return start


def _kernel(emit: Callable[..., None]) -> Any:
    """Make a function that Numba can call of one that emits code.

    `emit` takes the builder and its arguments: arrays arrive as pointers to float, everything
    else as 64-bit integers.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
        arguments = [
            context.make_array(kind)(context, builder, value).data
            if isinstance(kind, types.Array)
            else context.cast(builder, value, kind, types.int64)
            for kind, value in zip(signature.args, values, strict=True)
        ]
        emit(builder, *arguments)
        return context.get_dummy_value()

    def typed(_: Any, *arguments: Any) -> tuple[Any, Any]:
        return types.void(*arguments), generate

    typed.__name__ = emit.__name__
    # Numba folds a call's arguments by the signature: the builder stands for the typing context.
    typed.__signature__ = inspect.signature(emit)  # type: ignore[attr-defined]
    return intrinsic(typed)


# Winograd's minimal filtering F(4x4, 3x3): Lavin & Gray 2015 (arXiv:1509.09308), section 4.3.
# One-dimensional transforms; two dimensions are rows, then columns.


def input_transform(d: Sequence[Any]) -> tuple[Any, ...]:
    """B^T d: six neighbouring values to six points."""
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
    """A^T m: products at six points to four neighbouring values."""
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
    """`transform` on each row of a square, then on each column; returns rows."""
    rows = [transform(row) for row in square]
    columns = [transform(column) for column in zip(*rows, strict=True)]
    return list(zip(*columns, strict=True))


def _emit_input(
    builder: Any, read: Callable[[Any], Lanes], x: tuple[Any, Any, Any], v: tuple[Any, Any, Any]
) -> None:
    (start, row, column), (target, place, plane) = x, v
    d = [[read(_at(builder, start, (i, row), (j, column))) for j in range(6)] for i in range(6)]
    for i, values in enumerate(in_two_dimensions(input_transform, d)):
        for j, value in enumerate(values):
            _store(builder, target, _at(builder, place, (6 * i + j, plane)), value)


@_kernel
def transform_input(
    builder: Any, x: Any, start: Any, row: Any, column: Any, v: Any, place: Any, plane: Any
) -> None:
    """V = B^T d B for a 6x6 patch d of x, on LANES channels."""

    def read(index: Any) -> Lanes:
        return _load(builder, x, index)

    _emit_input(builder, read, (start, row, column), (v, place, plane))


@_kernel
def transform_masked_input(
    builder: Any, x: Any, y: Any, start: Any, row: Any, column: Any, v: Any, place: Any, plane: Any
) -> None:
    """Likewise, with x taken as zero wherever y is not positive: the gradient of a ReLU."""

    def read(index: Any) -> Lanes:
        return _load(builder, x, index).where_positive(_load(builder, y, index))

    _emit_input(builder, read, (start, row, column), (v, place, plane))


def _emit_output(
    builder: Any,
    finish: Callable[[Lanes], Lanes],
    m: tuple[Any, Any, Any],
    out: tuple[Any, Any, Any, Any],
) -> None:
    (source, place, plane), (target, start, row, column) = m, out
    products = [
        [_load(builder, source, _at(builder, place, (6 * i + j, plane))) for j in range(6)]
        for i in range(6)
    ]
    for i, values in enumerate(in_two_dimensions(output_transform, products)):
        for j, value in enumerate(values):
            _store(builder, target, _at(builder, start, (i, row), (j, column)), finish(value))


@_kernel
def transform_output(
    builder: Any, m: Any, place: Any, plane: Any, out: Any, start: Any, row: Any, column: Any
) -> None:
    """A^T M A into a 4x4 patch of out, on LANES channels."""
    _emit_output(builder, lambda value: value, (m, place, plane), (out, start, row, column))


@_kernel
def transform_biased_output(
    builder: Any,
    m: Any,
    place: Any,
    plane: Any,
    bias: Any,
    channel: Any,
    out: Any,
    start: Any,
    row: Any,
    column: Any,
) -> None:
    """A^T M A + bias."""
    added = _load(builder, bias, channel)
    _emit_output(builder, lambda value: value + added, (m, place, plane), (out, start, row, column))


@_kernel
def transform_rectified_output(
    builder: Any,
    m: Any,
    place: Any,
    plane: Any,
    bias: Any,
    channel: Any,
    out: Any,
    start: Any,
    row: Any,
    column: Any,
) -> None:
    """max(A^T M A + bias, 0)."""
    added = _load(builder, bias, channel)

    def finish(value: Lanes) -> Lanes:
        biased = value + added
        return biased.where_positive(biased)

    _emit_output(builder, finish, (m, place, plane), (out, start, row, column))


@_kernel
def multiply(
    builder: Any,
    a: Any,
    a_start: Any,
    a_row: Any,
    a_step: Any,
    b: Any,
    b_start: Any,
    b_step: Any,
    c: Any,
    c_start: Any,
    c_row: Any,
    depth: Any,
) -> None:
    """C [ROWS, PANEL] = A [ROWS, depth] B [depth, PANEL], all sums in registers.

    Element (r, k) of A is a[a_start + r * a_row + k * a_step], row k of B begins at
    b[b_start + k * b_step], row r of C at c[c_start + r * c_row].
    """
    entry = builder.block
    loop, done = builder.append_basic_block("loop"), builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    k = builder.phi(_INDEX)
    k.add_incoming(ir.Constant(_INDEX, 0), entry)
    sums = [[builder.phi(_VECTOR) for _ in range(2)] for _ in range(ROWS)]
    b_at = builder.add(b_start, builder.mul(k, b_step))
    panel = [_load(builder, b, b_at)]
    panel.append(_load(builder, b, builder.add(b_at, ir.Constant(_INDEX, LANES))))
    a_at = builder.add(a_start, builder.mul(k, a_step))
    following = builder.add(k, ir.Constant(_INDEX, 1))
    for r, row in enumerate(sums):
        factor = _everywhere(
            builder, builder.load(builder.gep(a, [_at(builder, a_at, (r, a_row))]))
        )
        for half, total in enumerate(row):
            product = builder.fmul(factor, panel[half].value, ("contract",))
            row[half] = builder.fadd(product, total, ("contract",))
            total.add_incoming(_ZERO, entry)
            total.add_incoming(row[half], loop)
    k.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, depth), loop, done)
    builder.position_at_end(done)
    for r, row in enumerate(sums):
        for half, total in enumerate(row):
            c_at = builder.add(_at(builder, c_start, (r, c_row)), ir.Constant(_INDEX, half * LANES))
            _store(builder, c, c_at, Lanes(builder, total))


def _everywhere(builder: Any, value: Any) -> Any:
    """A float in every lane of a vector."""
    lane = ir.IntType(32)
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(lane, 0))
    return builder.shuffle_vector(
        first, undefined, ir.Constant(ir.VectorType(lane, LANES), [0] * LANES)
    )


@_kernel
def average_four(
    builder: Any, x: Any, start: Any, row: Any, column: Any, out: Any, target: Any
) -> None:
    """The mean of a 2x2 patch."""
    corners = [_at(builder, start, (i, row), (j, column)) for i in range(2) for j in range(2)]
    a, b, c, d = (_load(builder, x, corner) for corner in corners)
    _store(builder, out, target, 0.25 * ((a + b) + (c + d)))


@_kernel
def put_quarter(builder: Any, x: Any, start: Any, out: Any, target: Any) -> None:
    """A quarter of x."""
    _store(builder, out, target, 0.25 * _load(builder, x, start))


@_kernel
def put_masked(builder: Any, x: Any, mask: Any, start: Any, out: Any, target: Any) -> None:
    """x where the mask is positive, zero elsewhere."""
    kept = _load(builder, x, start).where_positive(_load(builder, mask, start))
    _store(builder, out, target, kept)


@_kernel
def put_biased(
    builder: Any, x: Any, start: Any, bias: Any, channel: Any, out: Any, target: Any
) -> None:
    """x + bias."""
    _store(builder, out, target, _load(builder, x, start) + _load(builder, bias, channel))


@_kernel
def put_rectified(
    builder: Any, x: Any, start: Any, bias: Any, channel: Any, out: Any, target: Any
) -> None:
    """max(x + bias, 0)."""
    biased = _load(builder, x, start) + _load(builder, bias, channel)
    _store(builder, out, target, biased.where_positive(biased))


@_kernel
def add_to(builder: Any, total: Any, term: Any, index: Any) -> None:
    """total += term."""
    _store(builder, total, index, _load(builder, total, index) + _load(builder, term, index))
