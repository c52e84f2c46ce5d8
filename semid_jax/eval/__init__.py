"""How good the lists are: ranking accuracy, diversity, and how well a user's tastes were learned."""
