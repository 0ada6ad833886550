"""The widget for napari: a model on the image in view, its objects as labels with their measurements."""
