"""The shapes in which trainers and benchmarks read rows."""
