"""Compiled 3×3 convolution of bfloat16 as the direct sum, on tiles (tiles.py), which multiply so fast that transforms
such as `winograd`'s would take longer than what they save.

    y[p] = Σ w[i, j] x[p + (i, j)] + bias      ∂L/∂w[i, j] = Σ g[p] x[p + (i, j)]ᵀ, a sum over all places p

All images are one tall image with a row of zeros after each, of which a band of rows at a time is laid out flat: in
rows of one place more than they are wide, the first of which is zero. So a tap is a distance, sixteen places are the
rows of a tile, however wide an image is, and the three taps of a row of weights are one run of 3·C numbers. Sums at
places that are none of an image are dropped.

Products are exact and their sums float32; weights are rounded to bfloat16 as in any such product, and what is below
its normal numbers is 0. A run that fills no tiles is followed by weights of 0, so that what is not finite reaches
places before it too, those of the image before included, but never another trial.

Tensors in memory order: images x [N, H, W, T·C] and y [N, H, W, T·K] of T trials in bfloat16, weights [T·K, 3, 3, C]
and bias in float32. Tensors, bands and tiles are addresses, distances are bytes. One thread.
"""

import numpy as np

from normlab.tiles import ROW_BYTES, TILE, TILE_BYTES, give_tiles_back, sums_of, take_tiles
from normlab.vectors import (
    SIXTEEN,
    clear,
    compiled,
    copy,
    floats,
    narrow,
    pair,
    pair_halves,
    round_to_halves,
    rounded_up,
    transpose,
    values,
)

BAND = 2304  # chosen: places of a band, whose copies stay in the cache
HALF, WORD = np.uint16(0), np.uint32(0)
FEW = TILE // 3  # channels whose three taps are one row of a tile
ONES = 0x3F803F80  # a pair of ones

_read_2_2, _add_2_2, _write_2_2 = sums_of(2, 2)
_read_2_1, _add_2_1, _write_2_1 = sums_of(2, 1)
_read_1_1, _add_1_1, _write_1_1 = sums_of(1, 1)
_read_1_3, _add_1_3, _write_1_3 = sums_of(1, 3)


def fits(channels: int, filters: int) -> bool:
    """Whether channels and filters fill tiles; few channels, as of images, may leave a part of them empty."""
    return filters % TILE == 0 and (channels % TILE == 0 or channels <= FEW)


def scratch_floats(images: int, height: int, width: int, channels: int, filters: int) -> int:
    """How many floats `convolve` and `weight_gradient` need for their own use."""
    across = width + 1
    places = (min(BAND // across + 2, images * (height + 1)) + 5) * across + 8 * TILE
    weights = (3 * filters + TILE) * (3 * channels // 2 + 2 * TILE)
    return places * (2 * channels + filters + TILE) + weights + 2 * filters + 8 * TILE * TILE


@compiled
def _band(images, height, across):
    """How many rows of the tall image are a band."""
    return min(images * (height + 1), max(2, BAND // across))


@compiled
def _row(x_, row, images, height, size):
    """Where a row of the tall image is, whose rows have `size` bytes; 0 of one that is none of an image."""
    n, i = row // (height + 1), row % (height + 1)
    return x_ + (n * height + i) * size if row >= 0 and i < height and n < images else 0


@compiled
def _lay_out(x_, first, rows, images, height, width, pixel, size, flat_):
    """Rows first − 1 … first + rows of the tall image as those of a flat band. A place has `size` bytes, of which those
    of one trial are `pixel` apart before."""
    for i in range(rows + 2):
        source, target = _row(x_, first + i - 1, images, height, width * pixel), flat_ + i * (width + 1) * size
        if source == 0:
            clear(target, (width + 1) * size)
            continue
        clear(target, size)
        if pixel == size:
            copy(HALF, source, target + size, width * size // 2)
        else:
            for j in range(width):
                copy(HALF, source + j * pixel, target + (j + 1) * size, size // 2)


@compiled
def _lay_out_weights(w_, channels, filters, turned, steps, rounded_, u_):
    """Weights [K, 3, 3, C], or `turned` by 180° [C, 3, 3, K], as tiles [K / 16, 3, steps]: a row has one pair of the
    3·C numbers of a run, for each of 16 filters."""
    run, across = 3 * channels, 4 * TILE * steps
    if run % (2 * TILE):
        clear(u_, filters // TILE * 3 * steps * TILE_BYTES)
        clear(rounded_, TILE * across)
    for k in range(0, filters, TILE):
        for i in range(3):
            u = u_ + (k // TILE * 3 + i) * steps * TILE_BYTES
            if turned:
                for j in range(3):
                    for c in range(0, channels, 2):
                        w = w_ + 4 * ((9 * c + 8 - 3 * i - j) * filters + k)
                        pair(SIXTEEN, w, w + 36 * filters, u + (j * channels + c) // 2 * ROW_BYTES)
                continue
            for row in range(TILE):
                w, rounded = w_ + 4 * ((k + row) * 9 * channels + i * run), rounded_ + row * across
                for c in range(0, run // TILE * TILE, TILE):
                    round_to_halves(SIXTEEN, w + 4 * c, rounded + 2 * c)
                given, halves = floats(w, run), values(rounded, HALF, run)
                for c in range(run // TILE * TILE, run):
                    halves[c] = narrow(given[c], HALF)
            for step in range(steps):
                transpose(SIXTEEN, rounded_ + step * ROW_BYTES, across, u + step * TILE_BYTES, ROW_BYTES)


@compiled
def convolve(x_, w_, bias_, y_, scratch_, images, height, width, trials, channels, filters, turned):
    """y = x ∗ w + bias, with weights [T·K, 3, 3, C] and bias [T·K] or none; or with `turned` weights [T·C, 3, 3, K],
    as the gradient of an input is made from that of an output."""
    across, tall, band = width + 1, images * (height + 1), _band(images, height, width + 1)
    steps, size, wide = (3 * channels + 2 * TILE - 1) // (2 * TILE), 2 * channels, 2 * ROW_BYTES
    pixel_x, pixel_y = 2 * trials * channels, 2 * trials * filters
    sums_ = scratch_
    zeros_ = sums_ + 4 * TILE_BYTES
    rounded_ = zeros_ + 4 * filters
    u_ = rounded_ + TILE * ROW_BYTES * steps
    flat_ = u_ + filters // TILE * 3 * steps * TILE_BYTES
    clear(zeros_, 4 * filters)
    take_tiles()
    for trial in range(trials):
        x, y = x_ + size * trial, y_ + 2 * trial * filters
        bias = zeros_ if bias_ == 0 else bias_ + 4 * trial * filters
        _lay_out_weights(w_ + 36 * trial * channels * filters, channels, filters, turned, steps, rounded_, u_)
        for first in range(0, tall, band):
            rows = min(band, tall - first)
            _lay_out(x, first, rows, images, height, width, pixel_x, size, flat_)
            clear(flat_ + (rows + 2) * across * size, ROW_BYTES + size)  # what weights of 0 meet behind it
            end = rows * across - 1  # the last place is none
            for q in range(0, end, 2 * TILE):
                for k in range(0, filters, 2 * TILE):
                    a, b, two = flat_ + q * size, u_ + k // TILE * 3 * steps * TILE_BYTES, filters - k > TILE
                    _sum(two, a, size, across, b, steps, bias + 4 * k, sums_)
                    i, j = first + q // across, q % across
                    row = _row(y, i, images, height, width * pixel_y)
                    for sums in range(sums_, sums_ + min(2 * TILE, end - q) * wide, wide):
                        if row != 0 and j < width:
                            target = row + j * pixel_y + 2 * k
                            round_to_halves(SIXTEEN, sums, target)
                            if two:
                                round_to_halves(SIXTEEN, sums + ROW_BYTES, target + 2 * TILE)
                        j += 1
                        if j == across:
                            i, j = i + 1, 0
                            row = _row(y, i, images, height, width * pixel_y)
    give_tiles_back()


@compiled
def _sum(two, a, size, across, b, steps, bias, sums):
    """Sums [32, 32] of 32 places and as many filters, or half of them, from the runs of three rows of weights."""
    below, beside, wide = TILE * size, 3 * steps * TILE_BYTES, 2 * ROW_BYTES
    row, next_run = across * size, steps * TILE_BYTES
    if two:
        _read_2_2(bias, 0, 0, ROW_BYTES)
        for i in range(3):
            _add_2_2(a + i * row, size, below, ROW_BYTES, b + i * next_run, ROW_BYTES, beside, TILE_BYTES, steps)
        _write_2_2(sums, wide, TILE * wide, ROW_BYTES)
    else:
        _read_2_1(bias, 0, 0, 0)
        for i in range(3):
            _add_2_1(a + i * row, size, below, ROW_BYTES, b + i * next_run, ROW_BYTES, 0, TILE_BYTES, steps)
        _write_2_1(sums, wide, TILE * wide, 0)


@compiled
def _pair_places(source_, distance, size, target_):
    """Words of the numbers in so many bytes and of those at a distance from them."""
    for c in range(0, size, 2 * TILE):
        pair_halves(SIXTEEN, source_ + c, source_ + distance + c, target_ + 2 * c)


@compiled
def _pair_gradient(g_, first, half, end, images, height, width, pixel, size, zeros_, target_):
    """Words of the gradients of a place in the upper half of a band's rows, which ends before row `end`, and in the
    lower; 0 at places that are none."""
    for i in range(half):
        upper = _row(g_, first + i, images, height, width * pixel)
        lower = _row(g_, first + half + i, images, height, width * pixel) if first + half + i < end else 0
        target = target_ + 2 * i * (width + 1) * size
        step_upper, step_lower = pixel if upper != 0 else 0, pixel if lower != 0 else 0
        upper, lower = upper if upper != 0 else zeros_, lower if lower != 0 else zeros_
        for _ in range(width):
            for k in range(0, size, 2 * TILE):
                pair_halves(SIXTEEN, upper + k, lower + k, target + 2 * k)
            upper, lower, target = upper + step_upper, lower + step_lower, target + 2 * size
        clear(target, 2 * size)


@compiled
def _sum_weights(is_first, turned_, steps, x_pairs_, across, channels, zeros_, few, own):
    """Adds what a band's pairs of places give to the gradients of 16 filters' weights, or begins with it: to `own`,
    [16, 3, 3, C], or of few channels to the tiles at `few`, one for each row of weights."""
    row = 4 * channels
    for i in range(3):
        b = x_pairs_ + i * across * row
        if channels <= FEW:
            target = few + i * TILE_BYTES
            _read_1_1(zeros_ if is_first else target, 0 if is_first else ROW_BYTES, 0, 0)
            _add_1_1(turned_, ROW_BYTES, 0, TILE_BYTES, b, row, 0, TILE * row, steps)
            _write_1_1(target, ROW_BYTES, 0, 0)
            continue
        for c in range(0, 3 * channels, 3 * TILE):
            target = own + 4 * (3 * i * channels + c)
            _read_1_3(zeros_ if is_first else target, 0 if is_first else 9 * row, 0, 0 if is_first else ROW_BYTES)
            _add_1_3(turned_, ROW_BYTES, 0, TILE_BYTES, b + 4 * c, row, ROW_BYTES, TILE * row, steps)
            _write_1_3(target, 9 * row, 0, ROW_BYTES)


@compiled
def weight_gradient(x_, g_, w_, bias_, scratch_, images, height, width, trials, channels, filters):
    """∂L/∂w [T·K, 3, 3, C] to w and ∂L/∂bias [T·K] to bias, from x and g. Two places are a pair: one in the upper half
    of a band, and the one that lies as far below the first of the lower half."""
    across, tall, band = width + 1, images * (height + 1), _band(images, height, width + 1)
    most = rounded_up((band + 1) // 2 * across, TILE)
    size, size_g, pixel_x, pixel_g = 2 * channels, 2 * filters, 2 * trials * channels, 2 * trials * filters
    sums_ = scratch_
    ones_ = sums_ + TILE_BYTES
    zeros_ = ones_ + TILE_BYTES
    few_ = zeros_ + 4 * filters  # of few channels, sums are moved from here
    x_pairs_ = few_ + 12 * filters * TILE
    g_pairs_ = x_pairs_ + (most + 2 * across + 2 * TILE) * 2 * size
    turned_ = g_pairs_ + most * 2 * size_g
    flat_ = turned_ + most * ROW_BYTES
    clear(zeros_, 4 * filters)
    ones = values(ones_, WORD, TILE * TILE)
    for i in range(len(ones)):
        ones[i] = ONES
    of_bias, totals = floats(sums_, TILE * TILE), np.empty(filters, np.float64)
    take_tiles()
    for trial in range(trials):
        x, g, w = x_ + size * trial, g_ + size_g * trial, w_ + 36 * trial * channels * filters
        totals[:] = 0
        for first in range(0, tall, band):
            rows = min(band, tall - first)
            half = (rows + 1) // 2
            there, count = half * across, rounded_up(half * across, TILE)
            end = count + 2 * across + TILE  # of what is multiplied, if only with gradients of 0
            _lay_out(x, first, rows, images, height, width, pixel_x, size, flat_)
            clear(flat_ + (rows + 2) * across * size, (there + end + TILE - (rows + 2) * across) * size)
            _pair_places(flat_, there * size, end * size, x_pairs_)
            _pair_gradient(g, first, half, first + rows, images, height, width, pixel_g, size_g, zeros_, g_pairs_)
            clear(g_pairs_ + there * 2 * size_g, (count - there) * 2 * size_g)
            steps = count // TILE
            for k in range(0, filters, TILE):
                for step in range(steps):
                    g_pairs = g_pairs_ + step * TILE * 2 * size_g + 4 * k
                    transpose(SIXTEEN, g_pairs, 2 * size_g, turned_ + step * TILE_BYTES, ROW_BYTES)
                _read_1_1(zeros_, 0, 0, 0)
                _add_1_1(turned_, ROW_BYTES, 0, TILE_BYTES, ones_, ROW_BYTES, 0, 0, steps)
                _write_1_1(sums_, ROW_BYTES, 0, 0)
                for row in range(TILE):
                    totals[k + row] += of_bias[row * TILE]
                few, filter_ = few_ + k // TILE * 3 * TILE_BYTES, w + 36 * k * channels
                _sum_weights(first == 0, turned_, steps, x_pairs_, across, channels, zeros_, few, filter_)
        bias = floats(bias_ + 4 * trial * filters, filters)
        for k in range(filters):
            bias[k] = totals[k]
            for i in range(3 if channels <= FEW else 0):
                sums = few_ + (k // TILE * 3 + i) * TILE_BYTES + k % TILE * ROW_BYTES
                given, own = floats(sums, 3 * channels), floats(w + 12 * (3 * k + i) * channels, 3 * channels)
                for c in range(3 * channels):
                    own[c] = given[c]
    give_tiles_back()
