"""The only writers: generated files, the state folder, and the checks with the consumers' own parsers."""
