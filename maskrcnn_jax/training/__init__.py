"""The loop and what it steps: schedule, optimiser, state, checkpoints."""
