"""Text -> syntax tree with places: knows YAML, not models."""
