"""The worker daemon of overnight."""
