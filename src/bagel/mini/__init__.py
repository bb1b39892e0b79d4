"""How `mini`, the embedded model, is made: sizes, tokenizer, autoencoder, and the folder that training starts from.
docs/mini.md is the guide; `python -m bagel.mini` the command."""
