"""The files that people use: COCO results, label images, GeoJSON, tables, overlays, reports."""
