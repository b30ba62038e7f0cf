"""Labels as numbers, for networks of tests: -1 where there is none."""

import torch

from diffusion.conditioners.label import Label


def labels(condition, x):
    found = None if condition is None else condition.filled("label", -1)
    return torch.full((len(x),), -1) if found is None else found


def of(*classes, drop=0.1):
    """The conditioning of a model of these classes."""
    return {"label": Label(classes, drop)}
