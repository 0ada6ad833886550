"""The field's numbers from results and ground truth; needs no model and no JAX."""
