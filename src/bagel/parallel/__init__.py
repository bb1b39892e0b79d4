"""Several processes, a GPU each, that run one model together: how they share out the work, and what they say to
each other. Applied to the model from outside."""
