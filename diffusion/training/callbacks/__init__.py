"""Callbacks: guards, averages, checkpoints, progress, and pictures of a run."""
