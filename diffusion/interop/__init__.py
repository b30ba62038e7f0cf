"""Models of other programs, read into our words and written in theirs."""
