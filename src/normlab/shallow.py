"""The gradient of a 3×3 convolution's weights where channels are few, as those of images: the direct sum on vectors of
filters.

A transformed tile of Winograd's has hundreds of numbers for each of so few channels, and most of a vector is empty.
Here a band of rows lies flat, with one zero between them, so that a tap is a distance (as in `direct`): the 3·C inputs
that a row of the window meets lie side by side, and what is left are three matrix products.

    ∂L/∂w[i, r, k] = Σ_q x[q + i·(W + 1), r] g[q, k]          i: rows of the window, r: its columns and channels

It is summed over an image in float32, over images in float64. Tensors and names as in `winograd`. One thread.
"""

import numpy as np

from normlab.vectors import FLOAT, compiled, floats, panel_of, size_of, values, widen

MOST = 4  # channels: with more, Winograd's way is as fast
BAND = 8  # rows of outputs at a time, for the nearest cache to hold them

_panel_9_1, _panel_9_2, _panel_3_1, _panel_3_2 = panel_of(9, 1), panel_of(9, 2), panel_of(3, 1), panel_of(3, 2)
_panel_1_1, _panel_1_2 = panel_of(1, 1), panel_of(1, 2)


def scratch_floats(width, channels, filters):
    """How many floats `weight_gradient` needs for its own use."""
    return ((BAND + 2) * (width + 1) + 2) * channels + (BAND * (width + 1) + 9 * channels + 1) * filters + 1


@compiled
def _parts(scratch_, width, channels, filters):
    """Addresses within scratch: a band of inputs, one of gradients, sums for weights and bias, a 1."""
    band_ = scratch_ + 4 * ((BAND + 2) * (width + 1) + 2) * channels
    sums_ = band_ + 4 * BAND * (width + 1) * filters
    one_ = sums_ + 4 * (9 * channels + 1) * filters
    floats(one_, 1)[0] = 1
    return scratch_, band_, sums_, one_


@compiled
def _widen_row(like, source_, pixel, count, width, target_):
    """`width` pixels of so many values each, that lie `pixel` bytes apart, as float32 side by side."""
    if pixel == count * size_of(like):
        source, target = values(source_, like, width * count), floats(target_, width * count)
        for c in range(width * count):
            target[c] = widen(source[c])
    else:
        for j in range(width):
            source, target = values(source_ + j * pixel, like, count), floats(target_ + 4 * j * count, count)
            for c in range(count):
                target[c] = widen(source[c])


@compiled
def _clear(target_, count):
    target = floats(target_, count)
    for c in range(count):
        target[c] = 0


@compiled
def _read_band(like, x_, n, first, rows, height, width, pixel, channels, flat_):
    """Rows of an image as float32, [rows · (W + 1) + 2, C], a place of zeros before each and two after the last; rows
    outside of the image are zeros."""
    place = 4 * channels
    for i in range(rows):
        at_ = flat_ + i * (width + 1) * place
        if 0 <= first + i < height:
            _clear(at_, channels)
            _widen_row(like, x_ + (n * height + first + i) * width * pixel, pixel, channels, width, at_ + place)
        else:
            _clear(at_, (width + 1) * channels)
    _clear(flat_ + rows * (width + 1) * place, 2 * channels)


@compiled
def _gradients(lanes, flat_, band_, sums_, one_, places, down, channels, filters, add):
    """What a band adds to the gradient of weights [3, 3·C, K], and behind them of the bias."""
    row, of = 4 * filters, 4 * channels
    for k in range(0, 4 * filters, 8 * lanes):
        g, two = band_ + k, 4 * filters - k >= 8 * lanes
        for i in range(3):
            r = 0
            while r < 3 * channels:
                a, nine = flat_ + 4 * (i * down * channels + r), r + 9 <= 3 * channels
                w = sums_ + 4 * (i * 3 * channels + r) * filters + k
                if two and nine:
                    _panel_9_2(lanes, FLOAT, a, 4, of, g, row, w, row, places, add)
                elif two:
                    _panel_3_2(lanes, FLOAT, a, 4, of, g, row, w, row, places, add)
                elif nine:
                    _panel_9_1(lanes, FLOAT, a, 4, of, g, row, w, row, places, add)
                else:
                    _panel_3_1(lanes, FLOAT, a, 4, of, g, row, w, row, places, add)
                r += 9 if nine else 3
        bias = sums_ + 4 * 9 * channels * filters + k
        if two:
            _panel_1_2(lanes, FLOAT, one_, 0, 0, g, row, bias, row, places, add)
        else:
            _panel_1_1(lanes, FLOAT, one_, 0, 0, g, row, bias, row, places, add)


@compiled
def weight_gradient(like, lanes, x_, g_, w_, bias_, scratch_, images, height, width, trials, channels, filters):
    """∂L/∂w [T·K, 3, 3, C] to w and ∂L/∂bias [T·K] to bias, from x and g."""
    flat_, band_, sums_, one_ = _parts(scratch_, width, channels, filters)
    size, down, inputs = size_of(like), width + 1, 9 * channels
    pixel_x, pixel_g, row = size * trials * channels, size * trials * filters, 4 * (width + 1) * filters
    count = (inputs + 1) * filters
    of_image, sums = floats(sums_, count), np.empty(count)
    for trial in range(trials):
        x, g = x_ + size * trial * channels, g_ + size * trial * filters
        sums[:] = 0
        for n in range(images):
            for first in range(0, height, BAND):
                rows = min(BAND, height - first)
                _read_band(like, x, n, first - 1, rows + 2, height, width, pixel_x, channels, flat_)
                for i in range(rows):
                    own_ = g + (n * height + first + i) * width * pixel_g
                    _widen_row(like, own_, pixel_g, filters, width, band_ + i * row)
                    _clear(band_ + i * row + 4 * width * filters, filters)  # between two rows there is nothing
                _gradients(lanes, flat_, band_, sums_, one_, rows * down, down, channels, filters, first)
            for r in range(count):
                sums[r] += of_image[r]
        bias = floats(bias_ + 4 * trial * filters, filters)
        for k in range(filters):
            bias[k] = sums[inputs * filters + k]
            w = floats(w_ + 4 * (trial * filters + k) * inputs, inputs)
            for r in range(inputs):
                w[r] = sums[r * filters + k]
