"""Data sets: indexed images, split into train and val. The order is a function of (seed, epoch)."""
