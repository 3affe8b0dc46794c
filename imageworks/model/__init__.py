"""Syntax tree -> typed stack: what a person declared, checked, with every default filled in."""
