"""Keeps many machines alike: adds that nodes ask of each other, and repos whose new commits come by themselves."""
