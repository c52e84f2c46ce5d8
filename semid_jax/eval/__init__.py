"""How good the lists are: accuracy, diversity, and how well tastes were learned."""
