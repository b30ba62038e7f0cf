"""Data sets: images by index, split into train and val, in an order that is a function of (seed, epoch)."""
