"""Experiments on the digit scenes: the quickstart and the comparison of all families."""
