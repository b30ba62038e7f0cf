"""Spaces: maps between the stored values of a data set and x_0."""
