"""Findings about what a person wrote: values with a code, a place, a reason and a fix."""
