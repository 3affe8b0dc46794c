"""Programs of our own that the supervisor starts beside the proxy; none is imported by the rest."""
