"""Inference: contexts and their cache, the engine, text and image generation, and the pipeline over them."""
