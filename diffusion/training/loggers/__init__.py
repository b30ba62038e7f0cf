"""Loggers of numbers, pictures and tables: always the run folder, and W&B or TensorBoard if chosen."""
