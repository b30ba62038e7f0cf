"""Embeddings of images, in which distributions of images are compared."""
