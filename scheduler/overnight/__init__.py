"""Runs a graph of Python tasks to its end, whatever dies on the way."""
