"""How `mini`, the embedded model, is made: sizes, tokenizer, autoencoder, training, judging.
docs/mini.md is the guide; `python -m bagel.mini` the command."""
