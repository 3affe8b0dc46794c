"""Chats with models of Ollama, through its own API."""
