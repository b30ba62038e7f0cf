"""Metrics of a trained model, their results, and curves as pictures."""
