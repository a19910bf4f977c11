"""Device tests: reaching a board, probing it, running artifacts on it and measuring them there."""
