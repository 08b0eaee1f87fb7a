"""Squared distances between two sets of features by blocks: what neighbours, balls and kernels are made of.

A block is one matrix product, |a|^2 + |b|^2 - 2 a . b, of features about a mean: this keeps the terms of the size of their sum.
Memory beside the features is a few blocks, whatever N.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluators.metrics.feature_arrays import Features

_BLOCK = 1000  # images a side of a block: 4 MB in float32
_EXACT = 2**17  # numbers differences are formed of at once: 1 MB
_FLOAT32_FROM = 129  # features; below, float64 products cost no more than the rest


@dataclass(frozen=True)
class Block:
    """Distances from images ``rows`` of one set to images ``columns`` of another.

    Attributes:
        squared: |a_i - b_j|^2 up to rounding, which may take it below 0; (rows, columns).
        row_doubt, column_doubt: rounding changes entry i, j by less than row_doubt[i] + column_doubt[j].
    """

    rows: slice
    columns: slice
    squared: NDArray[np.floating]
    row_doubt: NDArray[np.floating]
    column_doubt: NDArray[np.floating]


def distance_blocks(
    a: Features, b: Features, *, within: bool = False, centre: NDArray[np.floating] | None = None
) -> Iterator[Block]:
    """Every pair of images of ``a`` (n, D) and ``b`` (m, D), in float32 from 129 features on, else in float64.

    Args:
        within: both are the same set; only blocks on the diagonal and above it are made.
        centre: subtracted from all features; the mean of ``b`` unless given.
    """
    d = b.shape[1]
    dtype = np.float32 if d >= _FLOAT32_FROM else np.float64
    resolution = float(np.finfo(dtype).eps) * (4 + math.sqrt(d))  # of |a|^2 + |b|^2
    centre = (b.mean(axis=0, dtype=np.float64) if centre is None else centre).astype(dtype)

    def about_centre(features: Features, part: slice) -> tuple[NDArray, NDArray]:
        rows = (features[part] - centre).astype(dtype, copy=False)
        return rows, np.einsum("ij,ij->i", rows, rows)

    for rows in blocks(len(a)):
        left, left_norms = about_centre(a, rows)
        for columns in blocks(len(b)):
            if within and columns.start < rows.start:
                continue
            # A product of one array with itself takes half the time.
            same = within and columns == rows
            right, right_norms = (left, left_norms) if same else about_centre(b, columns)
            squared = left @ right.T
            squared *= -2
            squared += left_norms[:, None]
            squared += right_norms
            yield Block(rows, columns, squared, resolution * left_norms, resolution * right_norms)


def exact_squared_distances(a: Features, b: Features, i: NDArray, j: NDArray) -> NDArray[np.float64]:
    """|a[i] - b[j]|^2 for each pair of positions, from differences in float64; the same number for (j, i)."""
    squared = np.empty(len(i))
    for part in blocks(len(i), max(1, _EXACT // a.shape[1])):
        difference = a[i[part]].astype(np.float64)
        difference -= b[j[part]]
        squared[part] = np.einsum("ij,ij->i", difference, difference)
    return squared


def blocks(n: int, size: int = _BLOCK) -> Iterator[slice]:
    """Cut range(n) into slices of at most ``size``."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
