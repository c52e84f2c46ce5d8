"""From item vectors to semantic IDs: k-means, balanced cells, OPQ, residual codes, health."""
