"""Typed stack -> resolved plan: all judgement happens here, nothing is read or written."""
