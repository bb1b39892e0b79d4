"""Judging a model: exercises are put to it in batches, and its outputs, never the model, are read."""
