"""Objectives: pure functions of tensors that return one value per sample, never reduced. The loop takes the mean."""
