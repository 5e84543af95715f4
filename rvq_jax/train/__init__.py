"""Training: one mesh, one rules table, one loop for every kind of model."""
