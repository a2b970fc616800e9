"""Makes right what a verification finds wrong in a cache."""
