"""Flax modules. Each is a pure function of its parameters; none knows a file, a logger or a global."""
