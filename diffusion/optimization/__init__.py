"""Optimisers, learning rates, and averages of the weights."""
