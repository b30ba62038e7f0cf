"""Training: the Trainer, strategies, callbacks, loggers, and the summary printed at the start."""
