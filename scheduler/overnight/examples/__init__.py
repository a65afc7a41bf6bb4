"""Runnable pipelines on data that every machine has, to try overnight on and to copy from."""
