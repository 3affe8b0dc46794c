"""Other people's configurations -> a stack.yaml: the reference system's registries, and llama-swap's file.

Owns the translation and the report of everything that was repaired, left out or cannot be said in this language.
Only keys that `model.stack` declares are ever written, and what is written has been loaded once. Nothing is planned,
started or written to disk here, and no environment is read.
"""
