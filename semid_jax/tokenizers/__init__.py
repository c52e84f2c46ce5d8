"""Tokenizers of others, from their papers' mathematics: items to vectors and a codebook for them.

Each module has a configuration, a Flax module, its losses as functions of arrays, and `fit`, which
trains it on the items of the train part and returns a `Fused`.
"""
