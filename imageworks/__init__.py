"""ImageWorks: run your own AI models on your own GPUs by editing one file."""

__version__ = "0.1.0"
