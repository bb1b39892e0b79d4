"""The OpenAI-compatible server: routes, limits, and the thread that runs the model."""
