"""The report of a run: one self-contained HTML page, and its figures as SVG, PNG and CSV."""
