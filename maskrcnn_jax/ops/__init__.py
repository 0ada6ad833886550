"""Pure functions on the arrays of one image. They take numbers, never a config; callers vmap them."""
