"""The store: the truth of each run, and the atomic steps that change it."""
