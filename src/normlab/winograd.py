"""Compiled 3×3 convolution with a quarter or a third of the multiplications: Winograd's F(4×4, 3×3) and F(2×4, 3×3)
(Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks", sections 4.1 and 4.3).

    y = Aᵀ [Σ (G w Gᵀ) ⊙ (Bᵀ x B)] A          a tile of 4×4 outputs, from 6×6 inputs and a sum over the channels
    ∂L/∂w = Gᵀ [Σ (Bᵀ x B) ⊙ (A g Aᵀ)] G      a sum over the tiles; g = ∂L/∂y

A block of tiles is transformed, multiplied as matrix products, one for each place p of a transformed tile, and
transformed back, all within the cache. What is multiplied is of a `kind`. As FLOAT, a tile is 36 places of float32. As
PAIR, it is two of 2×4 outputs, one above the other, of 24 places in bfloat16, whose sums are float32: twice as fast
on processors that multiply pairs, and half the memory, but F(4×4) would lose too many digits so.

The price is rounding: in float32 errors of 1e-5 of the largest value instead of 1e-6; of pairs a root mean square
error of 0.6 % of the outputs' own, where a direct sum of weights rounded to bfloat16 has 0.2 %.

Tensors in memory order: images x [N, H, W, T·C] and y [N, H, W, T·K] of T trials, whose values are float32 or bfloat16
as `like` is, and weights [T·K, 3, 3, C], float32 as all that is computed between reading and writing but the words of
PAIR. K is a multiple of the `lanes` of a vector, EIGHT or SIXTEEN, on which no bit of a result depends. Names with `_`
are addresses, strides are bytes. One thread.
"""

import math

import numpy as np

from normlab.vectors import (
    EIGHT,
    FLOAT,
    PAIR,
    SIXTEEN,
    clear,
    compiled,
    copy,
    count_of,
    floats,
    multiplies_pairs,
    multiply_by,
    number_of,
    numbers_in,
    one,
    pair,
    prefetch_all,
    rounded_up,
    sandwich_of,
    size_of,
    transpose,
    transposed,
    values,
    widest,
)


def toom_cook(outputs, points):
    """The matrices Aᵀ, G and Bᵀ of so many outputs of 3 taps, by values of polynomials at these points and at ∞."""
    others = [[q for q in points if q != p] for p in points]
    scales = [math.prod(p - q for q in rest) for p, rest in zip(points, others, strict=True)]
    at = [[*(p**i for p in points), i == outputs - 1] for i in range(outputs)]
    g = [*([p**i / scale for i in range(3)] for p, scale in zip(points, scales, strict=True)), [0, 0, 1]]
    bt = [*([*np.poly(rest)[::-1], 0] for rest in others), np.poly(points)[::-1]]
    return [[list(map(float, row)) for row in matrix] for matrix in (at, g, bt)]


def shares(points):
    """Of a sum of outputs in the places of `toom_cook`: what an output of 1 everywhere is made of (Lagrange at 1)."""
    return np.array([*(math.prod((1 - q) / (p - q) for q in points if q != p) for p in points), 0], np.float32)


def twice(matrix, shift):
    """A matrix and, below it, the same one moved to the right."""
    away = [0.0] * shift
    return [row + away for row in matrix] + [away + row for row in matrix]


POINTS = [0, 1, -1, 2, -2]
PAIR_POINTS = [0, 5 / 8, -5 / 8, 3 / 2, -3 / 2]  # of short fractions those that lose the fewest digits
AT, G, BT = toom_cook(4, POINTS)
PAIR_AT, PAIR_G, PAIR_BT = toom_cook(4, PAIR_POINTS)
UP_AT, UP_G, UP_BT = toom_cook(2, [0, 1, -1])  # of pairs along columns, where a tile is two

BLOCK = 24  # tiles in a block
FEW = 8  # in one of a gradient of wide weights, for both of its factors to stay in the nearest cache
WHOLE = 1024  # pairs of a channel and a filter up to which all filters are multiplied at once
SPAN = 2  # vectors of filters at once otherwise, for what they are multiplied with to stay in the cache
MOST_PLACES = 48  # of a transformed tile
ONES = 6  # the row of places of rows of outputs that are all the same: where a bias goes
SHARES, PAIR_SHARES = shares(POINTS), shares(PAIR_POINTS)
WIDEST = widest()
PAD = 16  # floats between two places of transformed weights, so that they do not share a cache line's set

_INPUT = (BT, BT), (twice(UP_BT, 2), PAIR_BT)
_GRADIENT = (transposed(AT), transposed(AT)), (twice(transposed(UP_AT), 2), transposed(PAIR_AT))
_input, _input_at_edge = sandwich_of(*_INPUT), sandwich_of(*_INPUT, bounded=True)
_gradient, _gradient_at_edge = sandwich_of(*_GRADIENT), sandwich_of(*_GRADIENT, bounded=True)
_weights, _output = sandwich_of((G, G), (UP_G, PAIR_G)), sandwich_of((AT, AT), (twice(UP_AT, 4), PAIR_AT))
_weights_back = sandwich_of((transposed(G), transposed(G)), (transposed(UP_G), transposed(PAIR_G)))


@compiled
def _places(kind):
    """Of the transform of what is multiplied, of one word each: rows of six."""
    return 36 if numbers_in(kind) == 1 else 24


@compiled
def _share(kind, place):
    """What a place has in the transform of an output that is 1 everywhere; 0 in most."""
    if not ONES <= place < ONES + 6:
        return FLOAT
    return SHARES[place - ONES] if numbers_in(kind) == 1 else PAIR_SHARES[place - ONES]


@compiled
def _multiply(lanes, kind, a, a_row, a_step, b, b_step, c, c_row, rows, depth, columns, start, start_row):
    """As `multiply_by`, with the vectors that suit the columns."""
    if numbers_in(kind) == 2 and columns == lanes:  # a word that is read is then multiplied twice: it takes as long
        multiply_by(EIGHT, kind, a, a_row, a_step, b, b_step, c, c_row, rows, depth, columns, start, start_row)
    else:
        multiply_by(lanes, kind, a, a_row, a_step, b, b_step, c, c_row, rows, depth, columns, start, start_row)


@compiled
def _expect(pixels_, row, pixel, size):
    """Fetches what the tile below will read anew: at large batches memory is far away, and its order no habit."""
    for i in range(4):
        for j in range(4):
            prefetch_all(pixels_ + i * row + j * pixel, size)


@compiled
def _place(tile, rows, columns):
    """The image, row and column where a tile of outputs begins."""
    rest = tile % (rows * columns)
    return tile // (rows * columns), 4 * (rest // columns), 4 * (rest % columns)


@compiled
def _next(n, i, j, rows, columns):
    """The place of the tile after this one: division takes a tenth of reading a tile."""
    j += 4
    if j == 4 * columns:
        i, j = i + 4, 0
        if i == 4 * rows:
            n, i = n + 1, 0
    return n, i, j


@compiled
def _read_input(
    like, lanes, kind, wanted, x_, n, top, left, height, width, pixel, channels, patch_, zeros_, v_
):  # fmt: skip
    """The transform of a tile's inputs, rows of [6, channels rounded up to whole vectors]; around an image there are
    zeros. Where channels fill no vector, the rest of it is whatever lies behind them, and stays without effect."""
    size, word, count = size_of(like), size_of(wanted), count_of(lanes)
    whole, rest, padded = channels // count * count, channels % count, rounded_up(channels, count)
    across, row, top, left = word * padded, width * pixel, top - 1, left - 1
    source, bottom, right = x_ + ((n * height + top) * width + left) * pixel, height - top, width - left
    apart = rest > 0 and (bottom - 6) * row < size * count  # behind the last rows there may be no memory
    end = whole if apart else padded
    if top >= 0 and left >= 0 and bottom >= 6 and right >= 6:
        for c in range(0, end, count):
            x, v, ends = source + c * size, v_ + word * c, (0, 6, 0, 6)
            _input(lanes, kind, like, x, row, pixel, wanted, v, 6 * across, across, zeros_, *ends)
    else:
        for c in range(0, end, count):
            x, v, ends = source + c * size, v_ + word * c, (-top, bottom, -left, right)
            _input_at_edge(lanes, kind, like, x, row, pixel, wanted, v, 6 * across, across, zeros_, *ends)
    if apart:
        few, v = size * count, v_ + word * whole
        for i in range(6):
            for j in range(6):
                inside = 0 <= top + i < height and 0 <= left + j < width
                few_ = source + i * row + j * pixel + whole * size if inside else zeros_
                copy(like, few_, patch_ + (6 * i + j) * few, rest)
        _input(lanes, kind, like, patch_, 6 * few, few, wanted, v, 6 * across, across, zeros_, 0, 6, 0, 6)
    _expect(source + 6 * row + pixel, row, pixel, size * channels)


@compiled
def _read_gradient(like, lanes, kind, g_, n, top, left, height, width, pixel, filters, zeros_, z_):
    """The transform of a tile's gradients, rows of [6, filters]."""
    size, row, across, bottom, right = size_of(like), width * pixel, 4 * filters, height - top, width - left
    source = g_ + ((n * height + top) * width + left) * pixel
    if bottom >= 4 and right >= 4:
        for k in range(0, filters, count_of(lanes)):
            g, z, ends = source + k * size, z_ + 4 * k, (0, 4, 0, 4)
            _gradient(lanes, kind, like, g, row, pixel, kind, z, 6 * across, across, zeros_, *ends)
    else:
        for k in range(0, filters, count_of(lanes)):
            g, z, ends = source + k * size, z_ + 4 * k, (0, bottom, 0, right)
            _gradient_at_edge(lanes, kind, like, g, row, pixel, kind, z, 6 * across, across, zeros_, *ends)
    _expect(source + 4 * row, row, pixel, size * filters)


@compiled
def _write_output(like, lanes, kind, m_, n, top, left, height, width, pixel, span, some, patch_, y_):
    """A tile's outputs of some filters, from their transform, rows of [6, span]."""
    size, row, across, bottom, right = size_of(like), width * pixel, 4 * span, height - top, width - left
    target = y_ + ((n * height + top) * width + left) * pixel
    for k in range(0, some, count_of(lanes)):
        m, y = m_ + 4 * k, target + k * size
        if bottom >= 4 and right >= 4:
            _output(lanes, kind, FLOAT, m, 6 * across, across, like, y, row, pixel, 0, 0, 0, 0, 0)
        else:
            few = size * lanes
            _output(lanes, kind, FLOAT, m, 6 * across, across, like, patch_, 4 * few, few, 0, 0, 0, 0, 0)
            for i in range(min(bottom, 4)):
                for j in range(min(right, 4)):
                    copy(like, patch_ + (4 * i + j) * few, y + i * row + j * pixel, lanes)


def lanes_for(channels, filters):
    """The widest vectors that channels and filters fill; of few channels, as in images, all are one vector."""
    return EIGHT if filters % 16 or (channels > 16 and channels % 16) else WIDEST


def kind_for(like, channels, filters):
    """What is multiplied: pairs where they are faster, of bfloat16 in whole vectors."""
    fits = channels % 16 == filters % 16 == 0 and isinstance(like, np.uint16) and WIDEST == SIXTEEN
    return PAIR if fits and multiplies_pairs() else FLOAT


def scratch_floats(channels, filters):
    """How many floats `convolve` and `weight_gradient` need for their own use."""
    most = int(SIXTEEN)
    across, padded = channels + most, filters + SPAN * most
    blocks = MOST_PLACES * BLOCK * (across + padded)
    return blocks + MOST_PLACES * ((across + PAD) * padded + most) + 9 * across * padded + across + padded


@compiled
def _parts(lanes, scratch_, across, filters):
    """Addresses within scratch: two blocks of transformed tiles, transformed weights, weights (which are not needed
    any more once they are transformed, nor for a gradient), a tile, zeros."""
    padded = filters + SPAN * lanes
    first_ = scratch_
    second_ = first_ + 4 * BLOCK * MOST_PLACES * across
    transformed_ = second_ + 4 * BLOCK * MOST_PLACES * padded
    weights_ = transformed_ + 4 * MOST_PLACES * (across + PAD) * padded
    tile_ = weights_ + 4 * 9 * across * padded
    zeros_ = tile_ + 4 * MOST_PLACES * lanes
    clear(tile_, 4 * (MOST_PLACES * lanes + across + padded))
    return first_, second_, transformed_, weights_, tile_, zeros_


@compiled
def _transform_weights(lanes, kind, w_, turned, channels, filters, first, some, span, weights_, u_, place):
    """Some filters of [K, 3, 3, C] → places of words [C or half of it, span]; or of an adjoint convolution's [C, 3, 3,
    K], `turned` by 180°."""
    if turned:
        row, column, source_, step = -12 * filters, -4 * filters, w_ + 4 * (8 * filters + first), 36 * filters
    else:
        size, step = 9 * channels, 4 * span
        whole = size // lanes * lanes
        for k in range(0, some, lanes):
            own_, to_ = w_ + 4 * (first + k) * size, weights_ + 4 * k
            for i in range(0, whole, lanes):
                transpose(lanes, own_ + 4 * i, 4 * size, to_ + i * step, step)
            for i in range(whole, size):
                for lane in range(lanes):
                    copy(FLOAT, own_ + 4 * (lane * size + i), to_ + i * step + 4 * lane, 1)
        row, column, source_ = 3 * channels * step, channels * step, weights_
    for c in range(channels):
        for k in range(0, 4 * some, 4 * lanes):
            w, u = source_ + c * step + k, u_ + 4 * c * span + k
            _weights(lanes, kind, FLOAT, w, row, column, FLOAT, u, 6 * place, place, 0, 0, 0, 0, 0)
    if numbers_in(kind) == 2:
        for p in range(_places(kind)):
            for c in range(0, channels, 2):
                for k in range(0, 4 * some, 4 * lanes):
                    u = u_ + p * place + 4 * c * span + k
                    pair(lanes, u, u + 4 * span, u - 2 * c * span)


@compiled
def convolve(like, lanes, kind, x_, w_, bias_, y_, scratch_, images, height, width, trials, channels, filters, turned):
    """y = x ∗ w + bias, with weights [T·K, 3, 3, C] and bias [T·K] or none; or with `turned` weights [T·C, 3, 3, K],
    as the gradient of an input is made from that of an output."""
    rows, columns, across = (height + 3) // 4, (width + 3) // 4, rounded_up(channels, lanes)
    span = filters if channels * filters <= WHOLE else SPAN * lanes
    tiles, places, place = images * rows * columns, _places(kind), 4 * (across * span + PAD)
    kept = 0 if tiles <= BLOCK else 1  # what is transformed of the weights; one block needs it once
    v_, m_, transformed_, weights_, patch_, zeros_ = _parts(lanes, scratch_, across, filters)
    number, parts, size = number_of(kind), numbers_in(kind), size_of(like)  # parts of a tile, each with all the places
    wide_v, wide_m, depth = size_of(number) * across, 4 * span, channels // parts
    a_row, c_row = places * wide_v, places * wide_m
    pixel_x, pixel_y = size * trials * channels, size * trials * filters
    for trial in range(trials):
        x, y = x_ + size * trial * channels, y_ + size * trial * filters
        bias_of_ = bias_ + 4 * trial * filters
        w = w_ + 36 * trial * channels * filters
        for first in range(0, tiles, BLOCK):
            count = min(BLOCK, tiles - first)
            n, i, j = _place(first, rows, columns)
            for t in range(count):
                v = v_ + t * parts * places * wide_v
                _read_input(like, lanes, kind, number, x, n, i, j, height, width, pixel_x, channels, patch_, zeros_, v)
                n, i, j = _next(n, i, j, rows, columns)
            for k in range(0, filters, span):
                some, u_ = min(span, filters - k), transformed_ + kept * (k // span) * places * place
                if first == 0:
                    _transform_weights(lanes, kind, w, turned, channels, filters, k, some, span, weights_, u_, place)
                biased_ = weights_
                bias, biased = floats(bias_of_ + 4 * k, some), floats(biased_, some)
                for p in range(places):
                    a, b, c, share = v_ + p * wide_v, u_ + p * place, m_ + p * wide_m, _share(kind, p)
                    start = biased_ if bias_ != 0 and share != 0 else 0
                    if start != 0:
                        for f in range(some):
                            biased[f] = share * bias[f]
                    _multiply(lanes, kind, a, a_row, 4, b, 4 * span, c, c_row, count * parts, depth, some, start, 0)
                n, i, j = _place(first, rows, columns)
                for t in range(count):
                    m, own = m_ + t * parts * places * wide_m, y + size * k
                    _write_output(like, lanes, kind, m, n, i, j, height, width, pixel_y, span, some, patch_, own)
                    n, i, j = _next(n, i, j, rows, columns)


@compiled
def weight_gradient(like, lanes, kind, x_, g_, w_, bias_, scratch_, images, height, width, trials, channels, filters):
    """∂L/∂w [T·K, 3, 3, C] to w and ∂L/∂bias [T·K], summed in float32 over a block and in float64 over all, to bias,
    from x and g."""
    rows, columns, across = (height + 3) // 4, (width + 3) // 4, rounded_up(channels, lanes)
    tiles, places, place = images * rows * columns, _places(kind), 4 * (across * filters + PAD)
    v_, z_, m_, total_, patch_, zeros_ = _parts(lanes, scratch_, across, filters)
    one_ = total_ + 4 * filters
    values(one_, kind, 1)[0], total = one(kind), floats(total_, filters)
    tile_v, tile_z, size = 4 * places * across, 4 * places * filters, size_of(like)
    pixel_x, pixel_g = size * trials * channels, size * trials * filters
    sums, block = np.empty(filters, np.float64), BLOCK if channels * filters <= WHOLE else FEW
    for trial in range(trials):
        x, g = x_ + size * trial * channels, g_ + size * trial * filters
        sums[:] = 0
        for first in range(0, tiles, block):
            count = min(block, tiles - first)
            n, i, j = _place(first, rows, columns)
            for t in range(count):
                v = v_ + t * tile_v
                _read_input(like, lanes, kind, kind, x, n, i, j, height, width, pixel_x, channels, patch_, zeros_, v)
                z = z_ + t * tile_z
                _read_gradient(like, lanes, kind, g, n, i, j, height, width, pixel_g, filters, zeros_, z)
                n, i, j = _next(n, i, j, rows, columns)
            for p in range(ONES, ONES + 6):
                share = _share(kind, p)
                if share != 0:
                    _multiply(lanes, kind, one_, 0, 0, z_ + 4 * p * filters, tile_z, total_, 0, 1, count, filters, 0, 0)
                    for k in range(filters):
                        sums[k] += share * total[k]
            for p in range(places):
                a, b, c, row = z_ + 4 * p * filters, v_ + 4 * p * across, m_ + p * place, 4 * across
                start = c if first > 0 else 0
                _multiply(lanes, kind, a, 4, tile_z, b, tile_v, c, row, filters, count, across, start, row)
        bias = floats(bias_ + 4 * trial * filters, filters)
        for k in range(filters):
            bias[k] = sums[k]
            w = w_ + 36 * (trial * filters + k) * channels
            _write_weights(lanes, kind, m_ + 4 * k * across, place, channels, patch_, w)


@compiled
def _write_weights(lanes, kind, m_, place, channels, patch_, w_):
    """The weights [3, 3, C] of a filter, from their transform."""
    for c in range(0, channels, lanes):
        m, w, some = m_ + 4 * c, w_ + 4 * c, min(channels - c, lanes)
        if some == lanes:
            tap = 4 * channels
            _weights_back(lanes, kind, FLOAT, m, 6 * place, place, FLOAT, w, 3 * tap, tap, 0, 0, 0, 0, 0)
        else:
            tap = 4 * lanes
            _weights_back(lanes, kind, FLOAT, m, 6 * place, place, FLOAT, patch_, 3 * tap, tap, 0, 0, 0, 0, 0)
            for i in range(9):
                copy(FLOAT, patch_ + i * tap, w + 4 * i * channels, some)
