"""Training: one loop for every model, exact resume, verified checkpoints."""
