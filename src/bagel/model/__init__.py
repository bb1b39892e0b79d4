"""The model: a Mixture-of-Transformers decoder, a SigLIP NaViT and the FLUX autoencoder."""
