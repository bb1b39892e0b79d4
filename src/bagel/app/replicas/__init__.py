"""Several copies of the model through Ray: replicas of the server, and workers of a batch."""
