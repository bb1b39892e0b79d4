"""`bagel bench train`: how fast one device trains, measured with the trainer's own step on random weights.

The pack is one of 17.6k tokens (five pictures drawn at 512 x 512, two edits, three questions about pictures of
560 x 560), the model a MoT of 2 x 1.31 B layer weights with a so400m ViT and FLUX's autoencoder, encoding included;
with `lora` the full 7B sizes, frozen, and a pack of 16.5k. Random weights cost the same time as real ones. The
ceilings of the device are measured in the same run.
"""

from bagel.train.bench.measure import BenchOptions, bench

__all__ = ["BenchOptions", "bench"]
