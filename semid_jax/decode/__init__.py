"""Search over semantic IDs: from a query to a ranked list of items."""
