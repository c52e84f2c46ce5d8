"""From a source on disk (or a synthetic world) to clean histories, splits and training batches."""
