"""Embeddings of images, in which their distributions are compared."""
