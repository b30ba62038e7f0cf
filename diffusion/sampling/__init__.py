"""Sampling for commands and previews: the config section, conditions in turn, grids, the folder of samples."""
