"""Spaces: between what a data set stores and x_0."""
