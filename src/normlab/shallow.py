"""The gradient of a 3×3 convolution's weights where channels are few, as those of images: the direct sum on vectors of
filters.

A transformed tile of Winograd's has hundreds of numbers for each of so few channels, and most of a vector is empty.
Here a band of rows lies flat, with one zero between them, so that a tap is a distance (as in `direct`): the 3·C inputs
that a row of the window meets lie side by side, and what is left are three matrix products.

    ∂L/∂w[i, r, k] = Σ_q x[q + i·(W + 1), r] g[q, k]          i: rows of the window, r: its columns and channels

It is summed over a band in float32, over bands in float64. Zeros are multiplied, too: an infinite input or gradient at
the edge of an image makes NaN also of taps that it never meets, of its own trial. Tensors and names as in `winograd`.
One thread.
"""

import numpy as np

from normlab.vectors import FLOAT, clear, compiled, floats, multiply_by, panel_of, size_of, values, widen

MOST = 4  # channels: with so many it is 1.1 to 1.5 times as fast as Winograd's way, with one 2.5 to 3.5 times
BAND = 8  # chosen: rows of outputs at a time, which the second cache holds

_panel_9_1, _panel_3_1 = panel_of(9, 1), panel_of(3, 1)


def scratch_floats(width, channels, filters):
    """How many floats `weight_gradient` needs for its own use."""
    inputs, outputs = (BAND + 2) * (width + 1) + 2, BAND * (width + 1) + 2
    return inputs * channels + (outputs + 9 * channels + 1) * filters + 1


@compiled
def _parts(scratch_, width, channels, filters):
    """Addresses within scratch: a band of inputs, one of gradients, sums for weights and bias, a 1."""
    band_ = scratch_ + 4 * ((BAND + 2) * (width + 1) + 2) * channels
    sums_ = band_ + 4 * (BAND * (width + 1) + 2) * filters
    one_ = sums_ + 4 * (9 * channels + 1) * filters
    floats(one_, 1)[0] = 1
    return scratch_, band_, sums_, one_


@compiled
def _read_band(like, x_, n, first, rows, height, width, pixel, channels, flat_):
    """Rows of an image as float32, [rows · (W + 1) + 2, C], a place of zeros before each and two after the last; rows
    outside of the image are zeros. Pixels lie `pixel` bytes apart."""
    place, run = 4 * channels, width if pixel == channels * size_of(like) else 1  # pixels without a gap between them
    for i in range(rows):
        at_, inside = flat_ + i * (width + 1) * place, 0 <= first + i < height
        clear(at_, place if inside else (width + 1) * place)
        for j in range(0, width if inside else 0, run):
            row_ = x_ + (n * height + first + i) * width * pixel
            source = values(row_ + j * pixel, like, run * channels)
            target = floats(at_ + (j + 1) * place, run * channels)
            for c in range(run * channels):
                target[c] = widen(source[c])
    clear(flat_ + rows * (width + 1) * place, 2 * place)


@compiled
def _gradients(lanes, flat_, band_, sums_, one_, places, across, channels, filters):
    """The gradient that a band gives to weights [3, 3·C, K], and behind them to the bias."""
    row, place, run = 4 * filters, 4 * channels, 3 * channels
    for k in range(0, row, 4 * lanes):
        for i in range(3):
            r = 0
            while r < run:
                a, w = flat_ + i * across * place + 4 * r, sums_ + (i * run + r) * row + k
                if r + 9 <= run:
                    _panel_9_1(lanes, FLOAT, a, 4, place, band_ + k, row, w, row, places, 0, 0)
                    r += 9
                else:
                    _panel_3_1(lanes, FLOAT, a, 4, place, band_ + k, row, w, row, places, 0, 0)
                    r += 3
    multiply_by(lanes, FLOAT, one_, 0, 0, band_, row, sums_ + 3 * run * row, row, 1, places, filters, 0, 0)


@compiled
def weight_gradient(like, lanes, x_, g_, w_, bias_, scratch_, images, height, width, trials, channels, filters):
    """∂L/∂w [T·K, 3, 3, C] to w and ∂L/∂bias [T·K] to bias, from x and g."""
    flat_, band_, sums_, one_ = _parts(scratch_, width, channels, filters)
    size, across, inputs = size_of(like), width + 1, 9 * channels
    pixel_x, pixel_g, count = size * trials * channels, size * trials * filters, (inputs + 1) * filters
    of_band, sums = floats(sums_, count), np.empty(count)
    for trial in range(trials):
        x, g = x_ + size * trial * channels, g_ + size * trial * filters
        sums[:] = 0
        for n in range(images):
            for first in range(0, height, BAND):
                rows = min(BAND, height - first)
                _read_band(like, x, n, first - 1, rows + 2, height, width, pixel_x, channels, flat_)
                _read_band(like, g, n, first, rows, height, width, pixel_g, filters, band_)
                own_ = band_ + 4 * filters  # behind the zero before a row is the one after it
                _gradients(lanes, flat_, own_, sums_, one_, rows * across, across, channels, filters)
                for r in range(count):
                    sums[r] += of_band[r]
        bias = floats(bias_ + 4 * trial * filters, filters)
        for k in range(filters):
            bias[k] = sums[inputs * filters + k]
            w = floats(w_ + 4 * (trial * filters + k) * inputs, inputs)
            for r in range(inputs):
                w[r] = sums[r * filters + k]
