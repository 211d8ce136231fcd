"""Products of matrices in the tile registers of Intel's AMX: 16 rows of 16 words, each a pair of numbers in bfloat16
or, of sums, one in float32. One instruction adds up 8,192 products, where one on vectors does 32.

A kernel takes the registers before it needs them and gives them back after it: what else runs in its thread, such as
oneDNN, expects to find them free. Addresses and distances are in bytes.
"""

import ctypes
import functools
import platform
import sys
from typing import Any

import llvmlite.ir as ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import config
from numba.extending import intrinsic

TILE = 16  # rows of a tile, and words of a row
ROW_BYTES, TILE_BYTES = 4 * TILE, 4 * TILE * TILE
_REGISTERS = 8
_ARCH_PRCTL, _REQUEST, _TILE_DATA = 158, 0x1023, 18  # of Linux on x86-64, where a process has to ask for them once
_BYTE, _WORD = ir.IntType(8), ir.IntType(64)


def host_features() -> dict[str, bool]:
    """What this processor can do, as far as numba compiles for it."""
    is_told_otherwise = config.CPU_NAME or config.CPU_FEATURES is not None or not config.ENABLE_AVX
    return {} if is_told_otherwise else dict(get_host_cpu_features())


@functools.cache
def has_tiles() -> bool:
    """Whether this processor has them for bfloat16, and this process may use them, for which it asks."""
    features = host_features()
    if not all(features.get(name) for name in ("amx-tile", "amx-bf16", "avx512bf16")):
        return False
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return False
    return bool(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST, _TILE_DATA) == 0)


@intrinsic
def take_tiles(context):
    """Sets all registers to whole tiles."""

    def generate(c, b, s, args):
        shape = [1, *[0] * 15, *[ROW_BYTES, 0] * _REGISTERS, *[0] * 16, *[TILE] * _REGISTERS, *[0] * 8]
        place = b.alloca(ir.ArrayType(_BYTE, len(shape)))
        b.store(ir.Constant(place.type.pointee, [ir.Constant(_BYTE, value) for value in shape]), place)
        _call(b, "ldtilecfg", b.bitcast(place, _BYTE.as_pointer()))
        return c.get_dummy_value()

    return types.void(), generate


@intrinsic
def give_tiles_back(context):
    def generate(c, b, s, args):
        _call(b, "tilerelease")
        return c.get_dummy_value()

    return types.void(), generate


def sums_of(rows: int, columns: int) -> tuple[Any, Any, Any]:
    """Compiled functions that read, add to, and write so many rows and columns of sums, each a tile, which stay in the
    registers between them.

    `read` and `write` are told where the first tile is, how far apart its rows, the tiles below each other and those
    beside each other. `add(a, a_row, a_below, a_step, b, b_row, b_beside, b_step, steps)` adds a · b: `steps` tiles of
    a lie a_step apart, and those of b, whose rows are pairs of rows of numbers, b_step.
    """
    sums = [(r * columns + v, r, v) for r in range(rows) for v in range(columns)]
    left, right = len(sums), len(sums) + rows
    assert right + columns <= _REGISTERS

    def moves(name: str) -> Any:
        @intrinsic
        def move(context, address, row, below, beside):
            def generate(c, b, s, args):
                address, row, below, beside = args
                for tile, r, v in sums:
                    _call(b, name, _number(tile), _at(b, address, (below, r), (beside, v)), row)
                return c.get_dummy_value()

            return types.void(*[types.int64] * 4), generate

        return move

    @intrinsic
    def add(context, a, a_row, a_below, a_step, b_, b_row, b_beside, b_step, steps):
        def generate(c, b, s, args):
            a, a_row, a_below, a_step, b_, b_row, b_beside, b_step, steps = args
            start, loop, end = b.block, b.append_basic_block(), b.append_basic_block()
            b.branch(loop)
            b.position_at_end(loop)
            i, a_i, b_i = (b.phi(_WORD) for _ in range(3))
            for r in range(rows):
                _call(b, "tileloadd64", _number(left + r), _at(b, a_i, (a_below, r)), a_row)
            for v in range(columns):
                _call(b, "tileloadd64", _number(right + v), _at(b, b_i, (b_beside, v)), b_row)
            for tile, r, v in sums:
                _call(b, "tdpbf16ps", *map(_number, (tile, left + r, right + v)))
            one = ir.Constant(_WORD, 1)
            steps_done = b.add(i, one)
            for value, first, step in ((i, ir.Constant(_WORD, 0), one), (a_i, a, a_step), (b_i, b_, b_step)):
                value.add_incoming(first, start)
                value.add_incoming(steps_done if value is i else b.add(value, step), loop)
            b.cbranch(b.icmp_signed("<", steps_done, steps), loop, end)
            b.position_at_end(end)
            return c.get_dummy_value()

        return types.void(*[types.int64] * 9), generate

    return moves("tileloadd64"), add, moves("tilestored64")


def _call(b: ir.IRBuilder, name: str, *arguments: ir.Value) -> None:
    name, kind = f"llvm.x86.{name}", ir.FunctionType(ir.VoidType(), [value.type for value in arguments])
    b.call(b.module.globals.get(name) or ir.Function(b.module, kind, name), list(arguments))


def _number(register: int) -> ir.Constant:
    return ir.Constant(_BYTE, register)


def _at(b: ir.IRBuilder, address: ir.Value, *distances: tuple[ir.Value, int]) -> ir.Value:
    for distance, times in distances:
        address = b.add(address, b.mul(distance, ir.Constant(_WORD, times)))
    return b.inttoptr(address, _BYTE.as_pointer())
