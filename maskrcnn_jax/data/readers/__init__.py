"""Data sets as they lie on disk, a module each format: `matches(path)` and `list_entries(path)`."""
