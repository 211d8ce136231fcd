"""What the compiled kernels are written with: addresses in memory, and loops over vectors that stay in registers, which
numba cannot write, made for LLVM."""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llvmlite.ir as ir
import numpy as np
from llvmlite.binding import get_host_cpu_name
from numba import carray, njit, types
from numba.extending import intrinsic

from normlab import tiles

# What kernels compute with: floats, or words of two numbers in bfloat16, whose products are summed in float32.
FLOAT, PAIR = np.float32(0), np.uint32(0)
# Floats in a vector, of integers as many bits wide, so that kernels are compiled for each.
EIGHT, SIXTEEN = np.int8(8), np.int16(16)

_OWN = hashlib.sha256(Path(__file__).read_bytes() + Path(tiles.__file__).read_bytes()).hexdigest()[:8]

Matrix = Sequence[Sequence[float]]
Matrices = tuple[Matrix, Matrix]

_FLOAT, _HALF, _BITS, _WORD = ir.FloatType(), ir.IntType(16), ir.IntType(32), ir.IntType(64)


def widest() -> np.integer[Any]:
    """The vectors that fill the registers of this processor."""
    return SIXTEEN if tiles.host_features().get("avx512f") else EIGHT


@functools.cache  # asked with every convolution, and not answered at once
def multiplies_pairs() -> bool:
    """Whether this processor does on vectors, and twice as fast as single numbers: AMD's, and not Intel's."""
    return _rounds() and get_host_cpu_name().startswith("znver")


@functools.cache
def _rounds() -> bool:
    """Whether this processor makes bfloat16 of float32 by an instruction, as far as numba compiles for it."""
    return bool(tiles.host_features().get("avx512bf16"))


def _named(function: Any) -> Any:
    """With a name that changes with this file: what was compiled is kept until its own file changes, but consists of
    what is made here, too."""
    function.__qualname__ += f".{_OWN}"
    return function


def compiled(function: Any) -> Any:
    return njit(_named(function), cache=True, error_model="numpy", boundscheck=False, nogil=True)


def compiled_sums(numbers: int) -> Any:
    """With sums in any order, which is what makes vectors of them. A function of so many integers, compiled at once and
    not when it is first called, which may be in the middle of a training."""
    signature, flags = types.void(*[types.int64] * numbers), {"reassoc", "contract"}
    settings = {"error_model": "numpy", "boundscheck": False, "nogil": True, "fastmath": flags}
    return lambda function: njit(signature, cache=True, **settings)(_named(function))


@intrinsic
def pointer(context, address, like):
    """An address as that of values of the type of `like`."""
    kind = types.CPointer(like)
    return kind(types.int64, like), lambda c, b, s, args: b.inttoptr(args[0], c.get_value_type(kind))


@intrinsic
def prefetch(context, address):
    """Asks for a line of memory to be brought near; any address will do."""

    def generate(c, b, s, args):
        place, word, name = b.inttoptr(args[0], ir.IntType(8).as_pointer()), _BITS, "llvm.prefetch.p0"
        kind = ir.FunctionType(ir.VoidType(), [place.type, word, word, word])
        fetch = b.module.globals.get(name) or ir.Function(b.module, kind, name)
        b.call(fetch, [place, *(ir.Constant(word, value) for value in (0, 3, 1))])  # to read, keep in all caches, data
        return c.get_dummy_value()

    return types.void(types.int64), generate


@compiled
def prefetch_all(address, size):
    """Asks for so many bytes."""
    for c in range(0, size, 64):
        prefetch(address + c)


@compiled
def values(address, like, count):
    return carray(pointer(address, like), count)


@compiled
def floats(address, count):
    return values(address, FLOAT, count)


@compiled
def copy(like, source_, target_, count):
    source, target = values(source_, like, count), values(target_, like, count)
    for c in range(count):
        target[c] = source[c]


@compiled
def clear(address, size):
    """Zeros in an even number of bytes."""
    there = values(address, np.uint16(0), size // 2)
    for i in range(len(there)):
        there[i] = 0


@compiled
def rounded_up(count, size):
    """Rounded up to a multiple of a size."""
    return (count + size - 1) // size * size


@intrinsic
def count_of(context, lanes):
    """How many floats a vector has, which is known when a kernel is compiled: to divide by it takes no time."""
    return types.int64(lanes), lambda c, b, s, args: _word(lanes.bitwidth)


@intrinsic
def size_of(context, like):
    """Bytes of a value of the type of `like`."""
    return types.int64(like), lambda c, b, s, args: _word(like.bitwidth // 8)


@intrinsic
def numbers_in(context, kind):
    """One in a FLOAT, two in a PAIR."""
    return types.int64(kind), lambda c, b, s, args: _word(1 if kind == types.float32 else 2)


@intrinsic
def number_of(context, kind):
    """A number of those, of its type in memory."""
    found = types.float32 if kind == types.float32 else types.uint16
    return found(kind), lambda c, b, s, args: ir.Constant(c.get_value_type(found), 0)


@intrinsic
def one(context, kind):
    """A word of a kind that is 1 in each of its numbers."""
    of_pair = 0x3F803F80  # 1 in bfloat16, twice
    number = 1.0 if kind == types.float32 else of_pair
    return kind(kind), lambda c, b, s, args: ir.Constant(c.get_value_type(kind), number)


@intrinsic
def widen(context, value):
    """A value from memory as float32."""
    return types.float32(value), lambda c, b, s, args: _widened(b, args[0])


@intrinsic
def narrow(context, value, like):
    """A float32 as it is kept in memory: bfloat16 is rounded to nearest, ties to even, by the processor's instruction
    where it has one, to which numbers below float32's normal ones are 0."""
    return like(types.float32, like), lambda c, b, s, args: _narrowed(b, args[0], args[1].type)


def _widened(b: ir.IRBuilder, value: ir.Value) -> ir.Value:
    if _element(value.type) == _FLOAT:
        return value
    bits = b.zext(value, _of(value.type, _BITS))
    return b.bitcast(b.shl(bits, _constant(bits.type, 16)), _of(value.type, _FLOAT))


def _narrowed(b: ir.IRBuilder, value: ir.Value, element: ir.Type) -> ir.Value:
    """As `narrow`, a number or a vector of them."""
    if element == _FLOAT:
        return value
    if _rounds():
        return b.bitcast(b.fptrunc(value, _of(value.type, _Brain())), _of(value.type, element))
    bits = b.bitcast(value, _of(value.type, _BITS))
    odd = b.and_(b.lshr(bits, _constant(bits.type, 16)), _constant(bits.type, 1))
    rounded = b.add(bits, b.add(odd, _constant(bits.type, 0x7FFF)))
    return b.trunc(b.lshr(rounded, _constant(bits.type, 16)), _of(value.type, element))


def _element(kind: ir.Type) -> ir.Type:
    return kind.element if isinstance(kind, ir.VectorType) else kind


def _of(kind: ir.Type, element: ir.Type) -> ir.Type:
    """A scalar, or as long a vector as `kind` is, of another element."""
    return ir.VectorType(element, kind.count) if isinstance(kind, ir.VectorType) else element


def _constant(kind: ir.Type, value: float) -> ir.Constant:
    """A number of a type, or a vector of it."""
    number = float(np.float32(value)) if _element(kind) == _FLOAT else value
    return ir.Constant(kind, [ir.Constant(kind.element, number)] * kind.count if _element(kind) != kind else number)


def _word(value: int) -> ir.Constant:
    return ir.Constant(_WORD, value)


def _vector(b: ir.IRBuilder, lanes: int, address: ir.Value, offset: ir.Value, element: ir.Type = _FLOAT) -> ir.Value:
    return b.inttoptr(b.add(address, offset), ir.VectorType(element, lanes).as_pointer())


def _multiply_add(b: ir.IRBuilder, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
    name = f"llvm.fma.v{x.type.count}f32"
    known = b.module.globals.get(name)
    return b.call(known or ir.Function(b.module, ir.FunctionType(x.type, [x.type] * 3), name), [x, y, z])


def _multiply_pairs(b: ir.IRBuilder, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
    """Σ of the two products of numbers in bfloat16 of each word, and z."""
    name, halves = f"llvm.x86.avx512bf16.dpbf16ps.{32 * z.type.count}", ir.VectorType(_Brain(), 2 * z.type.count)
    known = b.module.globals.get(name)
    known = known or ir.Function(b.module, ir.FunctionType(z.type, [z.type, halves, halves]), name)
    return b.call(known, [z, b.bitcast(x, halves), b.bitcast(y, halves)])


class _Brain(ir.Type):
    """LLVM's bfloat16, which llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Brain)

    def __hash__(self) -> int:
        return hash(_Brain)


def _combined(b: ir.IRBuilder, factors: Sequence[float], vectors: Sequence[ir.Value]) -> ir.Value:
    """Σ factor · vector."""
    (first, vector), *rest = sorted(((f, v) for f, v in zip(factors, vectors, strict=True) if f), key=_is_not_one)
    total = vector if first == 1 else b.fmul(_constant(vector.type, first), vector)
    for factor, vector in rest:
        if abs(factor) == 1:
            total = b.fadd(total, vector) if factor == 1 else b.fsub(total, vector)
        else:
            total = _multiply_add(b, _constant(vector.type, factor), vector, total)
    return total


def _is_not_one(term: tuple[float, ir.Value]) -> bool:
    return term[0] != 1


def _product(b: ir.IRBuilder, matrix: Matrix, vectors: Sequence[ir.Value]) -> list[ir.Value]:
    """matrix · vectors. Two rows that differ in the sign of every other place share what they are made of."""
    even, odd = ([[f * (k % 2 == rest) for k, f in enumerate(row)] for row in matrix] for rest in (0, 1))
    out: dict[int, ir.Value] = {}
    for i in range(len(matrix)):
        for j in range(i + 1, len(matrix)):
            sign = (even[i] == even[j]) - (even[i] == [-f for f in even[j]])
            if any(even[i]) and any(odd[i]) and sign and odd[j] == [-sign * f for f in odd[i]]:
                x, y = _combined(b, even[i], vectors), _combined(b, odd[i], vectors)
                out[i] = b.fadd(x, y)
                out[j] = b.fsub(x, y) if sign == 1 else b.fsub(y, x)
        if i not in out:
            out[i] = _combined(b, matrix[i], vectors)
    return [out[i] for i in range(len(matrix))]


def transposed(matrix: Matrix) -> list[list[float]]:
    return [list(column) for column in zip(*matrix, strict=True)]


def sandwich_of(of_floats: Matrices, of_pairs: Matrices, *, bounded: bool = False) -> Any:
    """A compiled function: target = left · source · rightᵀ, for a vector of channels, with the matrices (left, right)
    of a `kind`, FLOAT or PAIR. In memory sources are like `given`, targets like `wanted`; of PAIR, a word holds a row
    of the target's upper half and one of its lower. Of a `bounded` source only the rows top … bottom − 1 and columns
    left … right − 1 exist; the others are read at `zeros`."""

    @intrinsic
    def sandwich(
        context, lanes, kind, given, source, row, column, wanted, target, target_row, target_column, zeros, top, bottom,
        left, right,
    ):  # fmt: skip
        above, beside = of_floats if kind == types.float32 else of_pairs
        rows, columns = range(len(above[0])), range(len(beside[0]))

        def generate(c, b, s, args):
            _, _, given, source, row, column, wanted, target, target_row, target_column, zeros, *ends = args
            offsets = [[_times(b, row, i, column, j) for j in columns] for i in rows]
            if bounded:
                exist = [
                    [_is_within(b, i, *pair) for i in size] for size, pair in ((rows, ends[:2]), (columns, ends[2:]))
                ]
                away = b.sub(zeros, source)
                offsets = [
                    [b.select(b.and_(exist[0][i], exist[1][j]), offsets[i][j], away) for j in columns] for i in rows
                ]

            def read(at: ir.Value) -> ir.Value:
                return _widened(b, b.load(_vector(b, lanes.bitwidth, source, at, given.type), align=2))

            across = [_product(b, beside, [read(at) for at in ats]) for ats in offsets]
            for j, vectors in enumerate(zip(*across, strict=True)):
                made = _product(b, above, vectors)
                if wanted.type == _BITS:
                    half = len(made) // 2
                    kept = [_paired(b, *both) for both in zip(made[:half], made[half:], strict=True)]
                else:
                    kept = [_narrowed(b, vector, wanted.type) for vector in made]
                for i, vector in enumerate(kept):
                    at = _times(b, target_row, i, target_column, j)
                    b.store(vector, _vector(b, lanes.bitwidth, target, at, wanted.type), align=2)
            return c.get_dummy_value()

        words = [types.int64] * 3
        return types.void(lanes, kind, given, *words, wanted, *words, *[types.int64] * 5), generate

    return sandwich


def _paired(b: ir.IRBuilder, low: ir.Value, high: ir.Value) -> ir.Value:
    """Words of two numbers in bfloat16."""
    count, words = low.type.count, _of(low.type, _BITS)
    if not _rounds():
        halves = [b.zext(_narrowed(b, half, _HALF), words) for half in (low, high)]
        return b.or_(halves[0], b.shl(halves[1], _constant(words, 16)))
    name, both = f"llvm.x86.avx512bf16.cvtne2ps2bf16.{32 * count}", ir.VectorType(_Brain(), 2 * count)
    known = b.module.globals.get(name)
    known = known or ir.Function(b.module, ir.FunctionType(both, [low.type] * 2), name)
    numbers = b.bitcast(b.call(known, [high, low]), ir.VectorType(_HALF, 2 * count))  # those of `low`, then of `high`
    order = [lane for pair in zip(range(count), range(count, 2 * count), strict=True) for lane in pair]
    return b.bitcast(b.shuffle_vector(numbers, numbers, ir.Constant(ir.VectorType(_BITS, 2 * count), order)), words)


@intrinsic
def pair(context, lanes, low, high, target):
    """A vector of pairs from two of floats."""

    def generate(c, b, s, args):
        _, *sources, target = args
        halves = [b.load(_vector(b, lanes.bitwidth, at, _word(0)), align=4) for at in sources]
        b.store(_paired(b, *halves), _vector(b, lanes.bitwidth, target, _word(0), _BITS), align=4)
        return c.get_dummy_value()

    return types.void(lanes, *[types.int64] * 3), generate


@intrinsic
def pair_halves(context, lanes, low, high, target):
    """A vector of pairs from two of numbers in bfloat16."""

    def generate(c, b, s, args):
        _, *sources, target = args
        count = lanes.bitwidth
        halves = [b.load(_vector(b, count, at, _word(0), _HALF), align=2) for at in sources]
        low, high = (b.zext(half, ir.VectorType(_BITS, count)) for half in halves)
        words = b.or_(low, b.shl(high, _constant(high.type, 16)))
        b.store(words, _vector(b, count, target, _word(0), _BITS), align=4)
        return c.get_dummy_value()

    return types.void(lanes, *[types.int64] * 3), generate


@intrinsic
def round_to_halves(context, lanes, source, target):
    """A vector of floats as numbers in bfloat16."""

    def generate(c, b, s, args):
        _, source, target = args
        value = b.load(_vector(b, lanes.bitwidth, source, _word(0)), align=4)
        b.store(_narrowed(b, value, _HALF), _vector(b, lanes.bitwidth, target, _word(0), _HALF), align=2)
        return c.get_dummy_value()

    return types.void(lanes, *[types.int64] * 2), generate


@intrinsic
def transpose(context, lanes, source, source_row, target, target_row):
    """target[j, i] = source[i, j] of as many rows of floats as a vector has."""

    def generate(c, b, s, args):
        _, source, source_row, target, target_row = args
        count = lanes.bitwidth
        rows = [b.load(_vector(b, count, source, b.mul(source_row, _word(i))), align=4) for i in range(count)]
        distance = 1
        while distance < count:  # blocks of so many change places across the diagonal, then twice as many
            for i in (i for i in range(count) if not i & distance):
                rows[i], rows[i + distance] = _exchanged(b, rows[i], rows[i + distance], distance)
            distance *= 2
        for j, row in enumerate(rows):
            b.store(row, _vector(b, count, target, b.mul(target_row, _word(j))), align=4)
        return c.get_dummy_value()

    return types.void(lanes, *[types.int64] * 4), generate


def _exchanged(b: ir.IRBuilder, x: ir.Value, y: ir.Value, distance: int) -> tuple[ir.Value, ir.Value]:
    """Two rows of pairs of blocks (x0 x1 …), (y0 y1 …) as (x0 y0 …), (x1 y1 …)."""
    count = x.type.count
    firsts = [lane if not lane & distance else count + lane - distance for lane in range(count)]
    seconds = [lane + distance if not lane & distance else count + lane for lane in range(count)]
    kind = ir.VectorType(_BITS, count)
    return b.shuffle_vector(x, y, ir.Constant(kind, firsts)), b.shuffle_vector(x, y, ir.Constant(kind, seconds))


def panel_of(rows: int, vectors: int) -> Any:
    """A compiled function: target[rows, lanes·vectors] = a · b, of words of a `kind`, FLOAT or PAIR, plus what lies at
    `start` if that is not 0, in rows `start_row` apart. Element [r, i] of a lies at r · a_row + i · a_step; row i of b
    at i · b_step; the sum is over `depth` ≥ 1 values of i."""

    @intrinsic
    def panel(context, lanes, kind, a, a_row, a_step, b_, b_step, target, target_row, depth, start, start_row):
        def generate(c, b, s, args):
            _, _, a, a_row, a_step, b_, b_step, target, target_row, depth, start, start_row = args
            count = lanes.bitwidth
            of_sums, places = ir.VectorType(_FLOAT, count), [(r, v) for r in range(rows) for v in range(vectors)]
            bytes_ = _word(4 * count)
            targets, starts = (
                [_vector(b, count, at, _times(b, row, r, bytes_, v)) for r, v in places]
                for at, row in ((target, target_row), (start, start_row))
            )
            entry, read, ready, loop, end = b.block, *(b.append_basic_block() for _ in range(4))
            b.cbranch(b.icmp_signed("!=", start, _word(0)), read, ready)
            b.position_at_end(read)
            there = [b.load(place, align=4) for place in starts]
            b.branch(ready)
            b.position_at_end(ready)
            before = [_either(b, (_constant(of_sums, 0), entry), (value, read)) for value in there]
            b.branch(loop)

            b.position_at_end(loop)
            i, a_i, b_i = (_either(b, (value, ready)) for value in (_word(0), a, b_))
            sums = [_either(b, (value, ready)) for value in before]
            element, multiply = (_FLOAT, _multiply_add) if kind == types.float32 else (_BITS, _multiply_pairs)
            right = [b.load(_vector(b, count, b_i, _word(4 * count * v), element), align=4) for v in range(vectors)]
            left = [_spread(b, right[0].type, b.add(a_i, b.mul(a_row, _word(r)))) for r in range(rows)]
            after = [multiply(b, left[r], right[v], total) for (r, v), total in zip(places, sums, strict=True)]
            steps = [b.add(i, _word(1)), b.add(a_i, a_step), b.add(b_i, b_step)]
            for value, following in zip([i, a_i, b_i, *sums], [*steps, *after], strict=True):
                value.add_incoming(following, loop)
            b.cbranch(b.icmp_signed("<", steps[0], depth), loop, end)

            b.position_at_end(end)
            for value, place in zip(after, targets, strict=True):
                b.store(value, place, align=4)
            return c.get_dummy_value()

        return types.void(lanes, kind, *[types.int64] * 10), generate

    return panel


_panel_6_2, _panel_4_2, _panel_1_2 = panel_of(6, 2), panel_of(4, 2), panel_of(1, 2)
_panel_6_1, _panel_1_1 = panel_of(6, 1), panel_of(1, 1)


@compiled
def multiply_by(lanes, kind, a_, a_row, a_step, b_, b_step, c_, c_row, rows, depth, columns, start_, start_row):
    """c[rows, columns] = a · b, of words of a `kind`, plus what lies at `start` if that is not 0, in rows `start_row`
    apart; `b_step`, `a_step`: from one of `depth` places of the sum to the next. Columns are whole vectors."""
    wide = 8 * count_of(lanes)
    for k in range(0, 4 * columns, wide):
        b, two, r = b_ + k, 4 * columns - k >= wide, 0
        while r < rows:
            a, c, start = a_ + r * a_row, c_ + k + r * c_row, start_ + k + r * start_row if start_ != 0 else 0
            if two and r + 6 <= rows:
                _panel_6_2(lanes, kind, a, a_row, a_step, b, b_step, c, c_row, depth, start, start_row)
                r += 6
            elif two and r + 4 <= rows:
                _panel_4_2(lanes, kind, a, a_row, a_step, b, b_step, c, c_row, depth, start, start_row)
                r += 4
            elif two:
                _panel_1_2(lanes, kind, a, a_row, a_step, b, b_step, c, c_row, depth, start, start_row)
                r += 1
            elif r + 6 <= rows:
                _panel_6_1(lanes, kind, a, a_row, a_step, b, b_step, c, c_row, depth, start, start_row)
                r += 6
            else:
                _panel_1_1(lanes, kind, a, a_row, a_step, b, b_step, c, c_row, depth, start, start_row)
                r += 1


def _times(b: ir.IRBuilder, row: ir.Value, i: int, column: ir.Value, j: int) -> ir.Value:
    return b.add(b.mul(row, _word(i)), b.mul(column, _word(j)))


def _is_within(b: ir.IRBuilder, i: int, first: ir.Value, end: ir.Value) -> ir.Value:
    return b.and_(b.icmp_signed("<=", first, _word(i)), b.icmp_signed(">", end, _word(i)))


def _either(b: ir.IRBuilder, *ways: tuple[ir.Value, ir.Block]) -> ir.PhiInstr:
    value = b.phi(ways[0][0].type)
    for incoming, block in ways:
        value.add_incoming(incoming, block)
    return value


def _spread(b: ir.IRBuilder, kind: ir.VectorType, address: ir.Value) -> ir.Value:
    """A vector of one word."""
    first, nothing = ir.Constant(_BITS, 0), ir.Constant(kind, ir.Undefined)
    vector = b.insert_element(nothing, b.load(b.inttoptr(address, kind.element.as_pointer())), first)
    return b.shuffle_vector(vector, nothing, ir.Constant(ir.VectorType(_BITS, kind.count), [0] * kind.count))
