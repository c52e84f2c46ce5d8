"""From data and features to an evaluation, one file per kind of recommender."""
