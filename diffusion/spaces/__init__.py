"""Spaces: between what a dataset stores and x_0."""
