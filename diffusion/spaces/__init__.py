"""Spaces: maps between the stored values of a dataset and x_0."""
