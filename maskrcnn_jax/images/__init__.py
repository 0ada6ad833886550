"""Reading pixels: files, TIFF, slides and arrays, whole or in windows, always as RGB uint8."""
