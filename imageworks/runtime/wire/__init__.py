"""The edge of the proxy: sockets, HTTP framing, and the fast path."""
