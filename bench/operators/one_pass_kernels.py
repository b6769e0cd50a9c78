"""The compiled loops of `bench.operators.one_pass`; importing this needs numba.

A channel is computed whole before the next one, in the caches: its images lie below each other in
one long line, rows and images apart by zeros, so that a tap is one step in memory, and all loops
run along whole vectors of the line without an end to care for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numba
import numpy as np
from torch import Tensor

from bench.operators import jit

HEIGHT, WIDTH, PITCH, GAP, FRONT, LENGTH, ROOM = range(7)
"""Columns of `lines`: the image as it lies, from row to row, rows between images, what lies before
the first one, the numbers of all images, and of the buffer."""
TERM, FIRST, FORTH, FORTH_LENGTH, BACK, BACK_LENGTH = range(6)
"""Columns of `groups`: whose taps, the first, and where the outputs begin that they reach and how
many they are: of the value, and of the gradient of the map."""

PARTS = 16
"""Shares of the channels, where several threads take them."""


@numba.njit(fastmath=jit.FAST)
def _add(
    n: Any, w: Any, t: Any, steps: Any, sign: Any, source: Any, at: Any, target: Any, to: Any
) -> None:
    """target[to + p] += Σ_k w[t + k] · source[at + sign · steps[t + k] + p], p < n."""
    unsigned = np.uintp
    w0, w1, w2, w3, w4 = w[t], w[t + 1], w[t + 2], w[t + 3], w[t + 4]
    w5, w6, w7, w8 = w[t + 5], w[t + 6], w[t + 7], w[t + 8]
    a0, a1 = unsigned(at + sign * steps[t]), unsigned(at + sign * steps[t + 1])
    a2, a3 = unsigned(at + sign * steps[t + 2]), unsigned(at + sign * steps[t + 3])
    a4, a5 = unsigned(at + sign * steps[t + 4]), unsigned(at + sign * steps[t + 5])
    a6, a7 = unsigned(at + sign * steps[t + 6]), unsigned(at + sign * steps[t + 7])
    a8, out = unsigned(at + sign * steps[t + 8]), unsigned(to)
    for p in range(unsigned(n)):
        target[out + p] += (
            w0 * source[a0 + p]
            + w1 * source[a1 + p]
            + w2 * source[a2 + p]
            + w3 * source[a3 + p]
            + w4 * source[a4 + p]
            + w5 * source[a5 + p]
            + w6 * source[a6 + p]
            + w7 * source[a7 + p]
            + w8 * source[a8 + p]
        )


@numba.njit(fastmath=jit.FAST)
def _multiply(
    n: Any, t: Any, steps: Any, source: Any, at: Any, grad: Any, of: Any, sums: Any
) -> None:
    """sums[t + k] += Σ_p grad[of + p] · source[at + steps[t + k] + p], p < n."""
    unsigned, zero = np.uintp, np.float32(0)
    s0, s1, s2, s3, s4, s5, s6, s7, s8 = zero, zero, zero, zero, zero, zero, zero, zero, zero
    a0, a1 = unsigned(at + steps[t]), unsigned(at + steps[t + 1])
    a2, a3 = unsigned(at + steps[t + 2]), unsigned(at + steps[t + 3])
    a4, a5 = unsigned(at + steps[t + 4]), unsigned(at + steps[t + 5])
    a6, a7 = unsigned(at + steps[t + 6]), unsigned(at + steps[t + 7])
    a8, start = unsigned(at + steps[t + 8]), unsigned(of)
    for p in range(unsigned(n)):
        g = grad[start + p]
        s0 += g * source[a0 + p]
        s1 += g * source[a1 + p]
        s2 += g * source[a2 + p]
        s3 += g * source[a3 + p]
        s4 += g * source[a4 + p]
        s5 += g * source[a5 + p]
        s6 += g * source[a6 + p]
        s7 += g * source[a7 + p]
        s8 += g * source[a8 + p]
    sums[t] += s0
    sums[t + 1] += s1
    sums[t + 2] += s2
    sums[t + 3] += s3
    sums[t + 4] += s4
    sums[t + 5] += s5
    sums[t + 6] += s6
    sums[t + 7] += s7
    sums[t + 8] += s8


@numba.njit(fastmath=jit.FAST)
def _lay(
    maps: Any, channel: Any, first: Any, count: Any, slots: Any, line: Any, turned: Any, out: Any
) -> None:
    """Lay images first … first + count − 1 of a channel along a line of `slots` images."""
    height, width, pitch, gap = line[HEIGHT], line[WIDTH], line[PITCH], line[GAP]
    for slot in range(slots):
        start = line[FRONT] + slot * (height + gap) * pitch
        if slot >= count:
            for i in range(height):
                for j in range(width):
                    out[start + i * pitch + j] = 0
        elif turned:
            image = maps[first + slot, channel]
            for i in range(height):
                for j in range(width):
                    out[start + i * pitch + j] = image[j, i]
        else:
            image = maps[first + slot, channel]
            for i in range(height):
                for j in range(width):
                    out[start + i * pitch + j] = image[i, j]


@numba.njit(fastmath=jit.FAST)
def _lay_ways(
    maps: Any, channel: Any, first: Any, count: Any, slots: Any, lines: Any, out: Any
) -> None:
    """Lay images of a channel along the lines that terms need: as they are, and turned."""
    for way in range(2):
        if lines[way, LENGTH]:
            _lay(maps, channel, first, count, slots, lines[way], way == 1, out[way])


@numba.njit(fastmath=jit.FAST)
def _read(weight: Any, order: Any, channel: Any, out: Any) -> None:
    """Read the taps of a channel, in the order in which they are added."""
    for t in range(len(order)):
        if order[t, 0] >= 0:
            out[t] = weight[order[t, 0] + channel * order[t, 1]]


@numba.njit(fastmath=jit.FAST)
def _lift(
    line: Any, source: Any, count: Any, turned: Any, maps: Any, first: Any, channel: Any
) -> None:
    """Add what lies along a line to the maps of a channel."""
    height, width, pitch, gap = line[HEIGHT], line[WIDTH], line[PITCH], line[GAP]
    for slot in range(count):
        start = slot * (height + gap) * pitch
        image = maps[first + slot, channel]
        if turned:
            for j in range(width):
                for i in range(height):
                    image[j, i] += source[start + i * pitch + j]
        else:
            for i in range(height):
                for j in range(width):
                    image[i, j] += source[start + i * pitch + j]


def _forward(
    x: Any,
    channels: Any,
    resting: Any,
    weight: Any,
    order: Any,
    steps: Any,
    groups: Any,
    turned: Any,
    lines: Any,
    inside: Any,
    slots: Any,
    gamma: Any,
    beta: Any,
    eps: Any,
    residual: Any,
    y: Any,
    mean: Any,
    var: Any,
    out: Any,
    parts: Any,
) -> None:
    images, _, height, width = x.shape
    count, terms, chunks = len(channels), len(turned), y.shape[2]
    values, kept = images * height * width, np.float32(residual)
    for part in numba.prange(parts):
        laid = np.zeros((2, max(lines[0, ROOM], lines[1, ROOM])), np.float32)
        total = np.empty((2, max(lines[0, LENGTH], lines[1, LENGTH])), np.float32)
        w = np.zeros(len(order), np.float32)
        scale, sums = np.empty(terms, np.float32), np.empty(terms)
        for c in range(part * count // parts, (part + 1) * count // parts):
            _read(weight, order, c, w)
            for b in range(terms):
                sums[b] = 0
            for chunk in range(chunks):
                first = chunk * slots
                here = min(slots, images - first)
                full = 0 if here == slots else 1
                _lay_ways(x, channels[c], first, here, slots, lines, laid)
                group = 0
                for b in range(terms):
                    way = turned[b]
                    start, length = lines[way, FRONT], lines[way, LENGTH]
                    target, mask = y[c, b, chunk], inside[way, full]
                    for p in range(length):
                        target[p] = 0
                    while group < len(groups) and groups[group, TERM] == b:
                        at = groups[group, FORTH]
                        _add(
                            groups[group, FORTH_LENGTH],
                            w,
                            groups[group, FIRST],
                            steps,
                            1,
                            laid[way],
                            start + at,
                            target,
                            at,
                        )
                        group += 1
                    part_sum = np.float32(0)
                    for p in range(length):
                        value = target[p] * mask[p]
                        target[p] = value
                        part_sum += value
                    sums[b] += part_sum
            constant = np.float32(0)
            for b in range(terms):
                mean[b, c] = sums[b] / values
                middle, squares = np.float32(mean[b, c]), 0.0
                for chunk in range(chunks):
                    here = min(slots, images - chunk * slots)
                    mask = inside[turned[b], 0 if here == slots else 1]
                    source, part_sum = y[c, b, chunk], np.float32(0)
                    for p in range(lines[turned[b], LENGTH]):
                        apart = (source[p] - middle) * mask[p]
                        part_sum += apart * apart
                    squares += float(part_sum)
                var[b, c] = squares / values
                scale[b] = gamma[b, c] / np.sqrt(var[b, c] + eps[b])
                constant += beta[b, c] - middle * scale[b]
            for image in range(images):
                source_image, image_out = x[image, channels[c]], out[image, c]
                for i in range(height):
                    for j in range(width):
                        image_out[i, j] = constant + kept * source_image[i, j]
            for chunk in range(chunks):
                here = min(slots, images - chunk * slots)
                for way in range(2):
                    length = lines[way, LENGTH]
                    if length:
                        added = total[way]
                        for p in range(length):
                            added[p] = 0
                        for b in range(terms):
                            if turned[b] == way:
                                source, factor = y[c, b, chunk], scale[b]
                                for p in range(length):
                                    added[p] += factor * source[p]
                        _lift(lines[way], added, here, way == 1, out, chunk * slots, c)
    for image in range(images):
        for r in range(len(resting)):
            out[image, count + r] = x[image, resting[r]]


def _backward(
    grad: Any,
    x: Any,
    channels: Any,
    resting: Any,
    weight: Any,
    order: Any,
    steps: Any,
    groups: Any,
    turned: Any,
    lines: Any,
    inside: Any,
    slots: Any,
    gamma: Any,
    eps: Any,
    residual: Any,
    y: Any,
    mean: Any,
    var: Any,
    of_x: Any,
    of_weight: Any,
    of_gamma: Any,
    of_beta: Any,
    parts: Any,
) -> None:
    images, _, height, width = x.shape
    count, terms, chunks = len(channels), len(turned), y.shape[2]
    values, kept = images * height * width, np.float32(residual)
    for part in numba.prange(parts):
        room = max(lines[0, ROOM], lines[1, ROOM])
        laid, back = np.zeros((2, room), np.float32), np.zeros((2, room), np.float32)
        laid_grad = np.zeros((2, chunks, room), np.float32)
        total = np.empty((2, max(lines[0, LENGTH], lines[1, LENGTH])), np.float32)
        w, of_w = np.zeros(len(order), np.float32), np.empty(len(order), np.float32)
        of_grad, of_y, constant = (
            np.empty(terms, np.float32),
            np.empty(terms, np.float32),
            np.empty(terms, np.float32),
        )
        for c in range(part * count // parts, (part + 1) * count // parts):
            _read(weight, order, c, w)
            for t in range(len(order)):
                of_w[t] = 0
            grads = 0.0
            for chunk in range(chunks):
                first = chunk * slots
                here = min(slots, images - first)
                _lay_ways(grad, c, first, here, slots, lines, laid_grad[:, chunk])
                way = 0 if lines[0, LENGTH] else 1
                source, part_sum, start = laid_grad[way, chunk], np.float32(0), lines[way, FRONT]
                for p in range(lines[way, LENGTH]):
                    part_sum += source[start + p]
                grads += float(part_sum)
            for b in range(terms):
                way = turned[b]
                start, length = np.uintp(lines[way, FRONT]), np.uintp(lines[way, LENGTH])
                middle, products = np.float32(mean[b, c]), 0.0
                for chunk in range(chunks):
                    source, value, part_sum = laid_grad[way, chunk], y[c, b, chunk], np.float32(0)
                    for p in range(length):
                        part_sum += source[start + p] * (value[p] - middle)
                    products += float(part_sum)
                inverse = 1 / np.sqrt(var[b, c] + eps[b])
                of_gamma[b, c], of_beta[b, c] = products * inverse, grads
                slope = gamma[b, c] * inverse
                of_grad[b] = slope
                of_y[b] = -slope * inverse * inverse * products / values
                constant[b] = -slope * grads / values - of_y[b] * mean[b, c]
            for chunk in range(chunks):
                first = chunk * slots
                here = min(slots, images - first)
                full = 0 if here == slots else 1
                _lay_ways(x, channels[c], first, here, slots, lines, laid)
                for way in range(2):
                    for p in range(lines[way, LENGTH]):
                        total[way, p] = 0
                group = 0
                for b in range(terms):
                    way = turned[b]
                    start, length = np.uintp(lines[way, FRONT]), np.uintp(lines[way, LENGTH])
                    source, value, mask = laid_grad[way, chunk], y[c, b, chunk], inside[way, full]
                    k0, k1, k2, of_term = of_grad[b], of_y[b], constant[b], back[way]
                    for p in range(length):
                        of_term[start + p] = (k0 * source[start + p] + k1 * value[p] + k2) * mask[p]
                    while group < len(groups) and groups[group, TERM] == b:
                        t, at = groups[group, FIRST], lines[way, FRONT] + groups[group, FORTH]
                        _multiply(
                            groups[group, FORTH_LENGTH], t, steps, laid[way], at, of_term, at, of_w
                        )
                        to = groups[group, BACK]
                        _add(
                            groups[group, BACK_LENGTH],
                            w,
                            t,
                            steps,
                            -1,
                            of_term,
                            lines[way, FRONT] + to,
                            total[way],
                            to,
                        )
                        group += 1
                for slot in range(here):
                    source_image, image_out = grad[first + slot, c], of_x[first + slot, channels[c]]
                    for i in range(height):
                        for j in range(width):
                            image_out[i, j] = kept * source_image[i, j]
                for way in range(2):
                    if lines[way, LENGTH]:
                        _lift(lines[way], total[way], here, way == 1, of_x, first, channels[c])
            for t in range(len(order)):
                if order[t, 0] >= 0:
                    of_weight[order[t, 0] + c * order[t, 1]] = of_w[t]
    for image in range(images):
        for r in range(len(resting)):
            of_x[image, resting[r]] = grad[image, count + r]


forward = {parallel: jit.compiled(_forward, parallel) for parallel in (False, True)}
"""Value, means and variances; by whether threads share the channels."""
backward = {parallel: jit.compiled(_backward, parallel) for parallel in (False, True)}
"""Gradients; by whether threads share the channels."""


def run(name: Literal["forward", "backward"], *arguments: Tensor | float) -> None:
    """Run a kernel on tensors, with as many threads as torch has."""
    kernels = {"forward": forward, "backward": backward}[name]

    def shared(parallel: bool) -> Callable[..., None]:
        return lambda *arrays: kernels[parallel](*arrays, PARTS if parallel else 1)

    jit.run(shared, *arguments)
