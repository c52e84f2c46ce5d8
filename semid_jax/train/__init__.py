"""Training of the tokenizer and of the generator."""
