"""Memory: planned before loading, placed from outside the model, given back after an accident.

sizes   bytes of weights, keys and values, and of a pass, from the configuration alone
cards   a device's memory, real or imagined
plan    what lies where, the expected peak, and what else would fit
"""
