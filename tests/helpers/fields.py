"""Correlated Gaussian fields 3x8x12, the channels of very different scales: a data set that no picture holds."""

import numpy as np

from diffusion.data.arrays import Arrays

SCALES = np.array([1e-3, 1.0, 1e4])
MEANS = np.array([5e-3, 0.0, -2e4])
SHAPE = (3, 8, 12)


def fields(n, seed=0):
    """float32 (n, 3, 8, 12); neighbours in a row and in a column are correlated."""
    x = np.random.default_rng(seed).standard_normal((n, *SHAPE))
    for axis in 2, 3:
        x = (x + np.roll(x, 1, axis) + np.roll(x, -1, axis)) / 3**0.5
    return (x * SCALES[:, None, None] + MEANS[:, None, None]).astype(np.float32)


def write(folder, **counts):
    """A folder for dataset=arrays, with so many rows of each split. Returns it."""
    for seed, (split, n) in enumerate(counts.items()):
        (folder / split).mkdir(parents=True)
        np.save(folder / split / "x.npy", fields(n, seed))
    return folder


def arrays(folder, **options):
    """The data set of a folder."""
    return Arrays(**{"path": str(folder), "batch_size": 8, "name": "mine"} | options)
