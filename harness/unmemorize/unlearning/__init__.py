"""The two families of unlearning: score neurons or weights, select the top share, set it to zero."""
