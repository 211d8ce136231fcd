"""Compiled dense layers of T trials for small batches, in float32: they cost what reading the weights costs, once.

In memory order x is [N, T·F], y [N, T·O], weights [T·O, F], and gradients g are like y. Names with `_` are addresses.
Sums over inputs are in the order that is fastest for the processor, the same in every call. One thread.
"""

import numpy as np

from normlab.vectors import compiled_sums, floats

ROWS = 8  # more are a matter of arithmetic: a library multiplies them faster


@compiled_sums(8)
def forward(x_, weight_, bias_, rows, trials, inputs, outputs, y_):
    """y = x · weightᵀ + bias."""
    y, bias = floats(y_, rows * trials * outputs), floats(bias_, trials * outputs)
    for o in range(trials * outputs):
        w, x = floats(weight_ + 4 * o * inputs, inputs), x_ + 4 * (o // outputs) * inputs
        for n in range(rows):
            own, total = floats(x + 4 * n * trials * inputs, inputs), np.float32(0)
            for f in range(inputs):
                total += own[f] * w[f]
            y[n * trials * outputs + o] = total + bias[o]


@compiled_sums(7)
def input_gradient(g_, weight_, rows, trials, inputs, outputs, out_):
    """∂L/∂x = g · weight."""
    g, out = floats(g_, rows * trials * outputs), floats(out_, rows * trials * inputs)
    out[:] = 0
    for o in range(trials * outputs):
        w = floats(weight_ + 4 * o * inputs, inputs)
        for n in range(rows):
            own = floats(out_ + 4 * (n * trials + o // outputs) * inputs, inputs)
            factor = g[n * trials * outputs + o]
            for f in range(inputs):
                own[f] += factor * w[f]


@compiled_sums(8)
def weight_gradient(x_, g_, rows, trials, inputs, outputs, out_, bias_):
    """∂L/∂weight = gᵀ · x, and ∂L/∂bias."""
    g, bias = floats(g_, rows * trials * outputs), floats(bias_, trials * outputs)
    for o in range(trials * outputs):
        own, x = floats(out_ + 4 * o * inputs, inputs), x_ + 4 * (o // outputs) * inputs
        own[:] = 0
        bias[o] = 0
        for n in range(rows):
            factor, row = g[n * trials * outputs + o], floats(x + 4 * n * trials * inputs, inputs)
            bias[o] += factor
            for f in range(inputs):
                own[f] += factor * row[f]
