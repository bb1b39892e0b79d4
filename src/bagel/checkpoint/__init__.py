"""Folders of weights, read and written.

names    published names of tensors, and where they lie in our parameters
folder   configuration, tokenizer, and a model without memory
fit      whether files fit a model
fill     parameters filled from files, quantised on the way where asked
loading  all of it, in order
saving   the way back

A model is built on the meta device; names and shapes are compared with the files' headers before anything
is allocated; then each parameter is allocated once and filled. Nothing is unpickled.
"""

from bagel.checkpoint.fill import Place
from bagel.checkpoint.fit import check
from bagel.checkpoint.folder import VAE_WEIGHTS, WEIGHTS, Checkpoint, build, read_config, read_tokenizer
from bagel.checkpoint.loading import Report, load, stored_bytes
from bagel.checkpoint.names import COMPUTED, Piece, pieces, published_names
from bagel.checkpoint.saving import check_other_weights, published_tensors, save
from bagel.packed_files import PACKED
from bagel.tensor_files import TensorFiles

__all__ = [
    "COMPUTED",
    "PACKED",
    "VAE_WEIGHTS",
    "WEIGHTS",
    "Checkpoint",
    "Piece",
    "Place",
    "Report",
    "TensorFiles",
    "build",
    "check",
    "check_other_weights",
    "load",
    "pieces",
    "published_names",
    "published_tensors",
    "read_config",
    "read_tokenizer",
    "save",
    "stored_bytes",
]
