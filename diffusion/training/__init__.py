"""Around a training: the Trainer, strategies, callbacks, loggers, and what is said when it begins."""
