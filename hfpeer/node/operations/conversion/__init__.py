"""Converts datasets: plans the parts, adds the files that each needs, and lets `hfpeer.conversion` make them.

It works in the process of the command; the node only brings files. Read `converting` first.
"""
