"""Weights on this machine: fetching packaged ones into the model store, reading the facts of files."""
