"""Turns the proved files of a dataset into files that trainers read: the same bytes everywhere, in bounded memory.

Read `plan` first, then `part`, which converts one part of a plan. Nothing here asks a network.
"""
