"""A report of run folders: one HTML file that needs nothing besides itself."""
