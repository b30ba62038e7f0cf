"""A report of run folders: one self-contained HTML file."""
