"""Compiled 3×3 convolution in float32 with a quarter of the multiplications: Winograd's F(4×4, 3×3) (Lavin & Gray 2016,
"Fast Algorithms for Convolutional Neural Networks", section 4.3).

    y = Aᵀ [Σ (G w Gᵀ) ⊙ (Bᵀ x B)] A          a tile of 4×4 outputs, from 6×6 inputs and a sum over the channels
    ∂L/∂w = Gᵀ [Σ (Bᵀ x B) ⊙ (A g Aᵀ)] G      a sum over the tiles; g = ∂L/∂y

A block of tiles is transformed, multiplied as 36 matrix products, one for each place p of a transformed tile, and
transformed back, all within the cache. The price is rounding: errors of 1e-5 of the largest value instead of 1e-6.

Tensors in memory order: images x [N, H, W, T·C] and y [N, H, W, T·K] of T trials, whose values are float32 or bfloat16
as `like` is, and weights [T·K, 3, 3, C], float32 as all that is computed between reading and writing. K is a multiple
of the `lanes` of a vector, EIGHT or SIXTEEN, on which no bit of a result depends. Names with `_` are addresses, strides
are bytes. One thread.
"""

import numpy as np

from normlab.vectors import (
    EIGHT,
    FLOAT,
    SIXTEEN,
    compiled,
    floats,
    panel_of,
    prefetch_all,
    sandwich_of,
    size_of,
    transpose,
    transposed,
    values,
    widest,
)

BT = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
      [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]  # fmt: skip
G = [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
     [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]  # fmt: skip
AT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]

BLOCK = 24  # tiles in a block
WHOLE = 1024  # pairs of a channel and a filter up to which all filters are multiplied at once
SPAN = 2  # vectors of filters at once otherwise, for what they are multiplied with to stay in the cache
PLACES = 36  # of a transformed tile
ONES = 7  # the place whose share of an output is 1 everywhere: where a bias goes
WIDEST = widest()
PAD = 16  # floats between two places of transformed weights, so that they do not share a cache line's set

_input, _input_at_edge = sandwich_of(BT), sandwich_of(BT, bounded=True)
_gradient, _gradient_at_edge = sandwich_of(transposed(AT)), sandwich_of(transposed(AT), bounded=True)
_weights, _weights_back, _output = sandwich_of(G), sandwich_of(transposed(G)), sandwich_of(AT)
_panel_6_2, _panel_4_2, _panel_1_2 = panel_of(6, 2), panel_of(4, 2), panel_of(1, 2)
_panel_6_1, _panel_1_1 = panel_of(6, 1), panel_of(1, 1)


@compiled
def _multiply(lanes, a_, a_row, a_step, b_, b_step, c_, c_row, rows, depth, columns, add):
    """c[rows, columns] = a · b, or += where it is to `add`."""
    for k in range(0, 4 * columns, 8 * lanes):
        b, c, two, r = b_ + k, c_ + k, 4 * columns - k >= 8 * lanes, 0
        while r < rows:
            a, target = a_ + r * a_row, c + r * c_row
            if two and r + 6 <= rows:
                _panel_6_2(lanes, a, a_row, a_step, b, b_step, target, c_row, depth, add)
                r += 6
            elif two and r + 4 <= rows:
                _panel_4_2(lanes, a, a_row, a_step, b, b_step, target, c_row, depth, add)
                r += 4
            elif two:
                _panel_1_2(lanes, a, a_row, a_step, b, b_step, target, c_row, depth, add)
                r += 1
            elif r + 6 <= rows:
                _panel_6_1(lanes, a, a_row, a_step, b, b_step, target, c_row, depth, add)
                r += 6
            else:
                _panel_1_1(lanes, a, a_row, a_step, b, b_step, target, c_row, depth, add)
                r += 1


@compiled
def _copy(like, source_, target_, count):
    source, target = values(source_, like, count), values(target_, like, count)
    for c in range(count):
        target[c] = source[c]


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
def _read_input(like, lanes, x_, n, top, left, height, width, pixel, channels, patch_, zeros_, v_):
    """The transform of a tile's inputs, [6, 6, channels rounded up to whole vectors]; around an image there are zeros.
    Where channels fill no vector, the rest of it is whatever lies behind them, and stays without effect."""
    size, whole, rest = size_of(like), channels // lanes * lanes, channels % lanes
    across, row, top, left = 4 * _whole(channels, lanes), width * pixel, top - 1, left - 1
    source, bottom, right = x_ + ((n * height + top) * width + left) * pixel, height - top, width - left
    apart = rest > 0 and (bottom - 6) * row < size * lanes  # behind the last rows there may be no memory
    end = whole if apart else _whole(channels, lanes)
    if top >= 0 and left >= 0 and bottom >= 6 and right >= 6:
        for c in range(0, end, lanes):
            v = v_ + 4 * c
            _input(lanes, like, source + c * size, row, pixel, FLOAT, v, 6 * across, across, zeros_, 0, 6, 0, 6)
    else:
        for c in range(0, end, lanes):
            v, ends = v_ + 4 * c, (-top, bottom, -left, right)
            _input_at_edge(lanes, like, source + c * size, row, pixel, FLOAT, v, 6 * across, across, zeros_, *ends)
    if apart:
        few = size * lanes
        for i in range(6):
            for j in range(6):
                inside = 0 <= top + i < height and 0 <= left + j < width
                few_ = source + i * row + j * pixel + whole * size if inside else zeros_
                _copy(like, few_, patch_ + (6 * i + j) * few, rest)
        _input(lanes, like, patch_, 6 * few, few, FLOAT, v_ + 4 * whole, 6 * across, across, zeros_, 0, 6, 0, 6)
    _expect(source + 6 * row + pixel, row, pixel, size * channels)


@compiled
def _read_gradient(like, lanes, g_, n, top, left, height, width, pixel, filters, zeros_, z_):
    """The transform of a tile's gradients, [6, 6, filters]."""
    size, row, across, bottom, right = size_of(like), width * pixel, 4 * filters, height - top, width - left
    source = g_ + ((n * height + top) * width + left) * pixel
    if bottom >= 4 and right >= 4:
        for k in range(0, filters, lanes):
            z = z_ + 4 * k
            _gradient(lanes, like, source + k * size, row, pixel, FLOAT, z, 6 * across, across, zeros_, 0, 4, 0, 4)
    else:
        for k in range(0, filters, lanes):
            z, ends = z_ + 4 * k, (0, bottom, 0, right)
            _gradient_at_edge(lanes, like, source + k * size, row, pixel, FLOAT, z, 6 * across, across, zeros_, *ends)
    _expect(source + 4 * row, row, pixel, size * filters)


@compiled
def _write_output(like, lanes, m_, n, top, left, height, width, pixel, span, some, patch_, y_):
    """A tile's outputs of some filters, from their transform [6, 6, span]."""
    size, row, across, bottom, right = size_of(like), width * pixel, 4 * span, height - top, width - left
    target = y_ + ((n * height + top) * width + left) * pixel
    for k in range(0, some, lanes):
        m, y = m_ + 4 * k, target + k * size
        if bottom >= 4 and right >= 4:
            _output(lanes, FLOAT, m, 6 * across, across, like, y, row, pixel, 0, 0, 6, 0, 6)
        else:
            few = size * lanes
            _output(lanes, FLOAT, m, 6 * across, across, like, patch_, 4 * few, few, 0, 0, 6, 0, 6)
            for i in range(min(bottom, 4)):
                for j in range(min(right, 4)):
                    _copy(like, patch_ + (4 * i + j) * few, y + i * row + j * pixel, lanes)


def lanes_for(channels, filters):
    """The widest vectors that channels and filters fill; of few channels, as in images, all are one vector."""
    return EIGHT if filters % 16 or (channels > 16 and channels % 16) else WIDEST


def scratch_floats(channels, filters):
    """How many floats `convolve` and `weight_gradient` need for their own use."""
    most = int(SIXTEEN)
    across, padded = channels + most, filters + SPAN * most
    blocks = PLACES * BLOCK * (across + padded)
    return blocks + PLACES * (across + PAD) * padded + 9 * across * padded + PLACES * most + across + padded


@compiled
def _whole(channels, lanes):
    """Rounded up to whole vectors."""
    return (channels + lanes - 1) // lanes * lanes


@compiled
def _parts(lanes, scratch_, across, filters):
    """Addresses within scratch: two blocks of transformed tiles, transformed weights, weights, a tile, zeros."""
    padded = filters + SPAN * lanes
    first_ = scratch_
    second_ = first_ + 4 * BLOCK * PLACES * across
    transformed_ = second_ + 4 * BLOCK * PLACES * padded
    weights_ = transformed_ + 4 * PLACES * (across + PAD) * padded
    tile_ = weights_ + 4 * 9 * across * padded
    zeros_ = tile_ + 4 * PLACES * lanes
    rest = floats(tile_, PLACES * lanes + across + padded)
    for c in range(len(rest)):
        rest[c] = 0
    return first_, second_, transformed_, weights_, tile_, zeros_


@compiled
def _transform_weights(lanes, w_, turned, channels, filters, first, some, span, weights_, u_, place):
    """Some filters of [K, 3, 3, C] → [36, C, span]; or of an adjoint convolution's [C, 3, 3, K], `turned` by 180°."""
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
                    _copy(FLOAT, own_ + 4 * (lane * size + i), to_ + i * step + 4 * lane, 1)
        row, column, source_ = 3 * channels * step, channels * step, weights_
    for c in range(channels):
        for k in range(0, 4 * some, 4 * lanes):
            u = u_ + 4 * c * span + k
            _weights(lanes, FLOAT, source_ + c * step + k, row, column, FLOAT, u, 6 * place, place, 0, 0, 3, 0, 3)


@compiled
def convolve(like, lanes, x_, w_, bias_, y_, scratch_, images, height, width, trials, channels, filters, turned):
    """y = x ∗ w + bias, with weights [T·K, 3, 3, C] and bias [T·K] or none; or with `turned` weights [T·C, 3, 3, K],
    as the gradient of an input is made from that of an output."""
    rows, columns, across = (height + 3) // 4, (width + 3) // 4, _whole(channels, lanes)
    span = filters if channels * filters <= WHOLE else SPAN * lanes
    tiles, place = images * rows * columns, 4 * (across * span + PAD)
    kept = 0 if tiles <= BLOCK else 1  # what is transformed of the weights; one block needs it once
    v_, m_, transformed_, weights_, patch_, zeros_ = _parts(lanes, scratch_, across, filters)
    tile_v, tile_m, size = 144 * across, 144 * span, size_of(like)
    pixel_x, pixel_y = size * trials * channels, size * trials * filters
    for trial in range(trials):
        x, y = x_ + size * trial * channels, y_ + size * trial * filters
        bias_of_ = bias_ + 4 * trial * filters if bias_ != 0 else zeros_
        w = w_ + 36 * trial * channels * filters
        for first in range(0, tiles, BLOCK):
            count = min(BLOCK, tiles - first)
            for t in range(count):
                n, i, j = _place(first + t, rows, columns)
                v = v_ + t * tile_v
                _read_input(like, lanes, x, n, i, j, height, width, pixel_x, channels, patch_, zeros_, v)
            for k in range(0, filters, span):
                some, u_ = min(span, filters - k), transformed_ + kept * (k // span) * PLACES * place
                if first == 0:
                    _transform_weights(lanes, w, turned, channels, filters, k, some, span, weights_, u_, place)
                for t in range(count):
                    _copy(FLOAT, bias_of_ + 4 * k, m_ + t * tile_m + 4 * ONES * span, some)
                for p in range(PLACES):
                    a, b, c = v_ + 4 * p * across, u_ + p * place, m_ + 4 * p * span
                    _multiply(lanes, a, tile_v, 4, b, 4 * span, c, tile_m, count, channels, some, p == ONES)
                for t in range(count):
                    n, i, j = _place(first + t, rows, columns)
                    m, own = m_ + t * tile_m, y + size * k
                    _write_output(like, lanes, m, n, i, j, height, width, pixel_y, span, some, patch_, own)


@compiled
def weight_gradient(like, lanes, x_, g_, w_, bias_, scratch_, images, height, width, trials, channels, filters):
    """∂L/∂w [T·K, 3, 3, C] to w and ∂L/∂bias [T·K] to bias, from x and g."""
    rows, columns, across = (height + 3) // 4, (width + 3) // 4, _whole(channels, lanes)
    tiles, place = images * rows * columns, 4 * (across * filters + PAD)
    v_, z_, m_, _, patch_, zeros_ = _parts(lanes, scratch_, across, filters)
    tile_v, tile_z, size = 144 * across, 144 * filters, size_of(like)
    pixel_x, pixel_g = size * trials * channels, size * trials * filters
    sums = np.empty(filters, np.float64)
    for trial in range(trials):
        x, g = x_ + size * trial * channels, g_ + size * trial * filters
        sums[:] = 0
        for first in range(0, tiles, BLOCK):
            count = min(BLOCK, tiles - first)
            for t in range(count):
                n, i, j = _place(first + t, rows, columns)
                v = v_ + t * tile_v
                _read_input(like, lanes, x, n, i, j, height, width, pixel_x, channels, patch_, zeros_, v)
                z = z_ + t * tile_z
                _read_gradient(like, lanes, g, n, i, j, height, width, pixel_g, filters, zeros_, z)
                share = floats(z + 4 * ONES * filters, filters)
                for k in range(filters):
                    sums[k] += share[k]
            for p in range(PLACES):
                a, b, c = z_ + 4 * p * filters, v_ + 4 * p * across, m_ + p * place
                _multiply(lanes, a, 4, tile_z, b, tile_v, c, 4 * across, filters, count, across, first > 0)
        bias = floats(bias_ + 4 * trial * filters, filters)
        for k in range(filters):
            bias[k] = sums[k]
            w = w_ + 36 * (trial * filters + k) * channels
            _write_weights(lanes, m_ + 4 * k * across, place, channels, patch_, w)


@compiled
def _write_weights(lanes, m_, place, channels, patch_, w_):
    """The weights [3, 3, C] of a filter, from their transform."""
    for c in range(0, channels, lanes):
        m, w, some = m_ + 4 * c, w_ + 4 * c, min(channels - c, lanes)
        if some == lanes:
            _weights_back(lanes, FLOAT, m, 6 * place, place, FLOAT, w, 12 * channels, 4 * channels, 0, 0, 6, 0, 6)
        else:
            _weights_back(lanes, FLOAT, m, 6 * place, place, FLOAT, patch_, 12 * lanes, 4 * lanes, 0, 0, 6, 0, 6)
            for tap in range(9):
                _copy(FLOAT, patch_ + 4 * tap * lanes, w + 4 * tap * channels, some)
