"""Metrics of a trained model, their results, and plots."""
