"""Masks on the host, on NumPy: run lengths, crops, pasting, polygons, overlaps."""
