"""Foundations: errors, files, images, noise by index, progress bars, devices."""
