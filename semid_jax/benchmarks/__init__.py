"""Speed, measured on the machine at hand: what a table of times is made of."""
