"""Tasks: generation, interpolation, image to image, inpainting."""
