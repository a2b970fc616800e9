"""Fakes: real programs that stand in for what the tests may not reach. Each stands alone, without hfpeer."""
