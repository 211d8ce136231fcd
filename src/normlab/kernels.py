"""Compiled loops over [rows, channels] in memory: moments, affine maps between two rectifiers, pooling, and their
adjoints; and both ends of a step, inputs from pixels and losses from logits.

    h → v = rectify(h; before) → u = a·v + b → rectify(u; after),      rectify(x; s) = x for x > 0, else s·x

Each value is read once a pass and rounded once, where separate operations read and write it again and again: their
cost is memory, not arithmetic. Values are float32, or bfloat16 as its upper 16 bits; whatever is per channel is
float32, sums are carried on in float64. All pointers are addresses, which numba unpacks fastest; `like` is a number of
the type of the values, np.float32(0) or np.uint16(0). One thread.
"""

import numpy as np
from numba import carray

from normlab.vectors import compiled, floats, narrow, pointer, prefetch_all, values, widen

WIDTH = 128  # channels a pass over a row should have; fewer are repeated until a row has as many
AHEAD = 4  # rows that are fetched before they are read: several streams at once are more than the processor foresees
BLOCK = 256  # rows summed up in float32 before their sums are added in float64


@compiled
def _repeats(rows, channels):
    """How often the channels are repeated in a row of the loop."""
    count = 1
    while count * channels < WIDTH and rows % (2 * count) == 0:
        count *= 2
    return count


@compiled
def _values(address, like, rows, width):
    return carray(pointer(address, like), (rows, width))


@compiled
def _bytes(address, rows, width):
    return carray(pointer(address, np.uint8(0)), (rows, width))


@compiled
def _repeated(addresses, channels, count):
    """Vectors of channels as the rows of one array, [vectors, count · channels], one where there is no vector: with
    fewer things in memory that might overlap, LLVM makes vectors of the loops."""
    out = np.ones((len(addresses), count * channels), np.float32)
    for row, address in enumerate(addresses):
        if address == 0:
            continue
        vector = floats(address, channels)
        for i in range(count):
            for c in range(channels):
                out[row, i * channels + c] = vector[c]
    return out


@compiled
def _add_up(totals, parts, channels, count):
    for row in range(len(totals)):
        for i in range(count):
            for c in range(channels):
                totals[row, c] += parts[row, i * channels + c]


@compiled
def moments(like, h_, rows, channels, before_, mean_, var_):
    """Mean and biased variance of v over the rows, taken around the first row to keep their digits."""
    count = _repeats(rows, channels)
    width, height = count * channels, rows // count
    h, vectors = _values(h_, like, height, width), _repeated((before_, before_), channels, count)
    slope, origin = 0, 1
    sums, totals = np.empty((2, width), np.float32), np.zeros((2, channels), np.float64)
    for j in range(width):
        v = widen(h[0, j % channels])
        vectors[origin, j] = v if v > 0 else v * vectors[slope, j]
    row, size = 0, width * h.itemsize
    while row < height:
        end = min(row + BLOCK, height)
        sums[:] = 0
        while row + 4 <= end:
            prefetch_all(h_ + (row + AHEAD) * size, 4 * size)
            for j in range(width):
                s, o = vectors[slope, j], vectors[origin, j]
                v0, v1 = widen(h[row, j]), widen(h[row + 1, j])
                v2, v3 = widen(h[row + 2, j]), widen(h[row + 3, j])
                v0, v1 = (v0 if v0 > 0 else v0 * s) - o, (v1 if v1 > 0 else v1 * s) - o
                v2, v3 = (v2 if v2 > 0 else v2 * s) - o, (v3 if v3 > 0 else v3 * s) - o
                sums[0, j] += (v0 + v1) + (v2 + v3)
                sums[1, j] += (v0 * v0 + v1 * v1) + (v2 * v2 + v3 * v3)
            row += 4
        while row < end:
            for j in range(width):
                v = widen(h[row, j])
                v = (v if v > 0 else v * vectors[slope, j]) - vectors[origin, j]
                sums[0, j] += v
                sums[1, j] += v * v
            row += 1
        _add_up(totals, sums, channels, count)
    mean, var = floats(mean_, channels), floats(var_, channels)
    for c in range(channels):
        shift = totals[0, c] / rows
        spread = totals[1, c] / rows - shift * shift
        mean[c] = vectors[origin, c] + shift
        var[c] = 0.0 if spread < 0 else spread  # NaN stays NaN


@compiled
def transform(like, h_, rows, channels, before_, a_, b_, after_, y_):
    """y = rectify(a·v + b; after)."""
    count = _repeats(rows, channels)
    width, height = count * channels, rows // count
    h, y = _values(h_, like, height, width), _values(y_, like, height, width)
    vectors = _repeated((before_, a_, b_, after_), channels, count)
    before, a, b, after = 0, 1, 2, 3
    for row in range(height):
        for j in range(width):
            v = widen(h[row, j])
            v = v if v > 0 else v * vectors[before, j]
            u = v * vectors[a, j] + vectors[b, j]
            y[row, j] = narrow(u if u > 0 else u * vectors[after, j], like)


@compiled
def _adjoint_sums(like, h_, g_, rows, channels, before_, a_, b_, after_, mean_):
    """Of the gradients w = ∂L/∂u, from g = ∂L/∂y: Σ w and Σ w·(v − mean) over the rows, [2, channels]."""
    count = _repeats(rows, channels)
    width, height = count * channels, rows // count
    h, g = _values(h_, like, height, width), _values(g_, like, height, width)
    vectors = _repeated((before_, a_, b_, after_, mean_), channels, count)
    before, a, b, after, mean = 0, 1, 2, 3, 4
    sums, totals = np.empty((2, width), np.float32), np.zeros((2, channels), np.float64)
    row, size = 0, width * h.itemsize
    while row < height:
        end = min(row + BLOCK, height)
        sums[:] = 0
        while row + 2 <= end:
            prefetch_all(h_ + (row + AHEAD) * size, 2 * size)
            prefetch_all(g_ + (row + AHEAD) * size, 2 * size)
            for j in range(width):
                s, t, m = vectors[before, j], vectors[after, j], vectors[mean, j]
                v0, v1 = widen(h[row, j]), widen(h[row + 1, j])
                w0, w1 = widen(g[row, j]), widen(g[row + 1, j])
                v0, v1 = v0 if v0 > 0 else v0 * s, v1 if v1 > 0 else v1 * s
                w0 = w0 if v0 * vectors[a, j] + vectors[b, j] > 0 else w0 * t
                w1 = w1 if v1 * vectors[a, j] + vectors[b, j] > 0 else w1 * t
                sums[0, j] += w0 + w1
                sums[1, j] += w0 * (v0 - m) + w1 * (v1 - m)
            row += 2
        while row < end:
            for j in range(width):
                v, w = widen(h[row, j]), widen(g[row, j])
                v = v if v > 0 else v * vectors[before, j]
                w = w if v * vectors[a, j] + vectors[b, j] > 0 else w * vectors[after, j]
                sums[0, j] += w
                sums[1, j] += w * (v - vectors[mean, j])
            row += 1
        _add_up(totals, sums, channels, count)
    return totals


@compiled
def _adjoint(like, h_, g_, rows, channels, before_, a_, b_, after_, mean_, slope_, offset_, out_):
    """∂L/∂h from g = ∂L/∂y, where ∂L/∂v = a·w + slope·(v − mean) + offset."""
    count = _repeats(rows, channels)
    width, height = count * channels, rows // count
    h, g, out = _values(h_, like, height, width), _values(g_, like, height, width), _values(out_, like, height, width)
    vectors = _repeated((before_, a_, b_, after_, mean_, slope_, offset_), channels, count)
    before, a, b, after, mean, slope, offset = 0, 1, 2, 3, 4, 5, 6
    for row in range(height):
        for j in range(width):
            value, w = widen(h[row, j]), widen(g[row, j])
            v = value if value > 0 else value * vectors[before, j]
            w = w if v * vectors[a, j] + vectors[b, j] > 0 else w * vectors[after, j]
            z = w * vectors[a, j] + (v - vectors[mean, j]) * vectors[slope, j] + vectors[offset, j]
            out[row, j] = narrow(z if value > 0 else z * vectors[before, j], like)


@compiled
def _moved(average, new, of_new):
    change = new - average
    return average + of_new * change if of_new < 0.5 else new - (np.float32(1) - of_new) * change


@compiled
def move(average_, value_, factor, shares_, share, channels):
    """A moving average takes a share, of each channel or the same for all, of a new value times a factor; of the two
    forms of that sum the one that is exact for a share of 0 or 1."""
    average, value, shares = floats(average_, channels), floats(value_, channels), floats(shares_, channels)
    for c in range(channels):
        of_new = shares[c] if shares_ != 0 else np.float32(share)
        average[c] = _moved(average[c], value[c] * np.float32(factor), of_new)


@compiled
def renorm(
    mean_, var_, eps, average_, deviation_, steps_, start, r_end, d_end, r_max, d_max, shares_, share, r_, d_, channels
):
    """r and d of batch renormalization for a batch of this mean and variance, within the clips of this step (see
    `RampedClip`); then the averages of the mean and of the deviation move, and the step is counted."""
    mean, var, shares = floats(mean_, channels), floats(var_, channels), floats(shares_, channels)
    average, deviation = floats(average_, channels), floats(deviation_, channels)
    r, d, steps = floats(r_, channels), floats(d_, channels), values(steps_, np.float64(0), 1)
    r_share = min(max((steps[0] - start) / (r_end - start), 0.0), 1.0)
    d_share = min(max((steps[0] - start) / (d_end - start), 0.0), 1.0)
    r_most, d_most = np.float32(1 + (r_max - 1) * r_share), np.float32(d_max * d_share)
    r_least, least = np.float32(1) / r_most, np.float32(np.sqrt(eps))
    for c in range(channels):
        own = np.sqrt(var[c] + np.float32(eps))
        reference = least if deviation[c] < least else deviation[c]
        ratio, shift = own / reference, (mean[c] - average[c]) / reference
        r[c] = r_least if ratio < r_least else r_most if ratio > r_most else ratio  # NaN stays NaN
        d[c] = -d_most if shift < -d_most else d_most if shift > d_most else shift
        of_new = shares[c] if shares_ != 0 else np.float32(share)
        average[c], deviation[c] = _moved(average[c], mean[c], of_new), _moved(deviation[c], own, of_new)
    steps[0] += 1


@compiled
def normalize(like, h_, rows, channels, before_, mean_, var_, weight_, bias_, eps, divides, after_, vectors_, y_):
    """y = rectify(a·v + b; after), where a = scale · weight, b = bias − mean · a, and scale is 1 / √(var + eps), or 1
    unless it `divides`. Without a weight, that is 1. `vectors` [5, channels]: scale, a, b, and two for the adjoint."""
    mean, var, bias = floats(mean_, channels), floats(var_, channels), floats(bias_, channels)
    weight, scale = floats(weight_, channels), floats(vectors_, channels)
    a, b = floats(vectors_ + 4 * channels, channels), floats(vectors_ + 8 * channels, channels)
    for c in range(channels):
        scale[c] = 1 / np.sqrt(var[c] + eps) if divides else 1.0
        a[c] = scale[c] * weight[c] if weight_ != 0 else scale[c]
        b[c] = bias[c] - mean[c] * a[c]
    transform(like, h_, rows, channels, before_, vectors_ + 4 * channels, vectors_ + 8 * channels, after_, y_)


@compiled
def normalize_adjoint(
    like, h_, g_, rows, channels, before_, mean_, vectors_, divides, after_, out_, weight_gradient_, bias_gradient_
):
    """Gradients of what `normalize` does, through the moments of its input too, from g = ∂L/∂y."""
    a_, b_ = vectors_ + 4 * channels, vectors_ + 8 * channels
    totals = _adjoint_sums(like, h_, g_, rows, channels, before_, a_, b_, after_, mean_)
    scale, a = floats(vectors_, channels), floats(a_, channels)
    of_weight, of_bias = floats(weight_gradient_, channels), floats(bias_gradient_, channels)
    slope_, offset_ = vectors_ + 12 * channels, vectors_ + 16 * channels
    slope, offset = floats(slope_, channels), floats(offset_, channels)
    for c in range(channels):
        share = -a[c] / rows
        slope[c] = share * scale[c] * scale[c] * totals[1, c] if divides else 0.0
        offset[c] = share * totals[0, c]
        of_weight[c], of_bias[c] = totals[1, c] * scale[c], totals[0, c]
    _adjoint(like, h_, g_, rows, channels, before_, a_, b_, after_, mean_, slope_, offset_, out_)


@compiled
def prelu(like, x_, rows, channels, slope_, y_):
    """y = x for x > 0, else slope · x, with a slope for each channel; where there is one for each element, a row is
    all of an image."""
    count = _repeats(rows, channels)
    width, height = count * channels, rows // count
    x, y = _values(x_, like, height, width), _values(y_, like, height, width)
    slopes = _repeated((slope_, slope_), channels, count)
    for row in range(height):
        for j in range(width):
            v = widen(x[row, j])
            y[row, j] = narrow(v if v > 0 else v * slopes[0, j], like)


@compiled
def prelu_adjoint(like, x_, g_, rows, channels, slope_, out_, slope_gradient_):
    """Gradients of what `prelu` does, from g = ∂L/∂y."""
    count = _repeats(rows, channels)
    width, height = count * channels, rows // count
    x, g, out = _values(x_, like, height, width), _values(g_, like, height, width), _values(out_, like, height, width)
    slopes, of_slope = _repeated((slope_, slope_), channels, count), floats(slope_gradient_, channels)
    sums, totals = np.empty((1, width), np.float32), np.zeros((1, channels), np.float64)
    first = 0
    while first < height:
        end = min(first + BLOCK, height)
        sums[:] = 0
        for row in range(first, end):
            for j in range(width):
                v, w = widen(x[row, j]), widen(g[row, j])
                out[row, j] = narrow(w if v > 0 else w * slopes[0, j], like)
                sums[0, j] += np.float32(0) if v > 0 else w * v
        _add_up(totals, sums, channels, count)
        first = end
    for c in range(channels):
        of_slope[c] = totals[0, c]


@compiled
def scale_pixels(images_, index_, trials, batch, pixels, channels, scale_, offset_, x_):
    """x = scale · pixel + offset, [batch, pixels, trials · channels], of the images at `index` [trials, batch] of all
    [N, pixels, channels], which are uint8."""
    index = values(index_, np.int64(0), trials * batch)
    scale, offset = floats(scale_, channels), floats(offset_, channels)
    size, row = pixels * channels, trials * channels
    for t in range(trials):
        for n in range(batch):
            image = values(images_ + index[t * batch + n] * size, np.uint8(0), size)
            x = floats(x_ + 4 * (n * trials * size + t * channels), trials * size)
            for p in range(pixels):
                for c in range(channels):
                    x[p * row + c] = np.float32(image[p * channels + c]) * scale[c] + offset[c]


@compiled
def cross_entropy(logits_, labels_, batch, trials, classes, losses_, hits_, gradient_):
    """Of logits [batch, trials, classes] and labels [trials, batch]: the mean loss of each trial, its correct answers,
    and the gradient of the losses' sum by the logits."""
    losses, hits = floats(losses_, trials), values(hits_, np.int64(0), trials)
    labels, share = values(labels_, np.int64(0), trials * batch), np.float32(1 / batch)
    for t in range(trials):
        total, right = 0.0, 0
        for n in range(batch):
            at, label = 4 * (n * trials + t) * classes, labels[t * batch + n]
            logits, gradient = floats(logits_ + at, classes), floats(gradient_ + at, classes)
            first = 0
            for k in range(classes):
                first = k if logits[k] > logits[first] else first
            whole = np.float32(0)
            for k in range(classes):
                gradient[k] = np.exp(logits[k] - logits[first])
                whole += gradient[k]
            for k in range(classes):
                gradient[k] *= share / whole
            gradient[label] -= share
            total += np.log(whole) - (logits[label] - logits[first])
            right += first == label
        losses[t], hits[t] = total / batch, right


@compiled
def raise_peaks(like, h_, rows, channels, peaks_):
    """peaks = max(peaks, maxima over the rows), float32 [channels]; NaN is above all."""
    count = _repeats(rows, channels)
    width, height = count * channels, rows // count
    h, peaks = _values(h_, like, height, width), floats(peaks_, channels)
    highest = np.full(width, -np.inf, np.float32)
    for row in range(height):
        for j in range(width):
            v = widen(h[row, j])
            highest[j] = v if v > highest[j] or v != v else highest[j]
    for j in range(width):
        v, c = highest[j], j % channels
        peaks[c] = v if v > peaks[c] or v != v else peaks[c]


@compiled
def pool(like, x_, images, height, width, channels, y_, winner_):
    """Maxima of 2×2 squares, [images, height, width, channels] → half of both, and which of the four won, the first
    of equals; NaN wins. A last odd row or column has no square."""
    rows, columns = height // 2, width // 2
    x = _values(x_, like, images * height, width * channels)
    y, winner = _values(y_, like, images * rows, columns * channels), _bytes(winner_, images * rows, columns * channels)
    for image in range(images):
        for i in range(rows):
            top, out = image * height + 2 * i, image * rows + i
            for j in range(columns):
                left, right, to = 2 * j * channels, (2 * j + 1) * channels, j * channels
                for c in range(channels):
                    best, place = widen(x[top, left + c]), np.uint8(0)
                    v = widen(x[top, right + c])
                    best, place = (v, np.uint8(1)) if v > best or v != v else (best, place)
                    v = widen(x[top + 1, left + c])
                    best, place = (v, np.uint8(2)) if v > best or v != v else (best, place)
                    v = widen(x[top + 1, right + c])
                    best, place = (v, np.uint8(3)) if v > best or v != v else (best, place)
                    y[out, to + c], winner[out, to + c] = narrow(best, like), place


@compiled
def pool_adjoint(like, g_, winner_, images, height, width, channels, out_):
    """The gradient of each square goes to its winner."""
    rows, columns = height // 2, width // 2
    out = _values(out_, like, images * height, width * channels)
    zero, size = narrow(np.float32(0), like), out.itemsize
    for image in range(images):
        for i in range(rows):
            for j in range(columns):
                square = (image * rows + i) * columns + j
                g = values(g_ + square * channels * size, like, channels)
                winner = values(winner_ + square * channels, np.uint8(0), channels)
                top_ = out_ + ((image * height + 2 * i) * width + 2 * j) * channels * size
                top = values(top_, like, 2 * channels)
                bottom = values(top_ + width * channels * size, like, 2 * channels)
                for c in range(channels):
                    top[c] = g[c] if winner[c] == 0 else zero
                    top[channels + c] = g[c] if winner[c] == 1 else zero
                    bottom[c] = g[c] if winner[c] == 2 else zero
                    bottom[channels + c] = g[c] if winner[c] == 3 else zero
            for row in (2 * i, 2 * i + 1):
                out[image * height + row, 2 * columns * channels :] = zero
        out[image * height + 2 * rows : (image + 1) * height] = zero
