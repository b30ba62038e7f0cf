"""What happens around training: weight averaging, previews, and the progress line."""
