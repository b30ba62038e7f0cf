"""Images of one way of sampling: the section of a config, conditions that take turns, grids, the folder of samples."""
