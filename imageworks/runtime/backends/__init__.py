"""How models are started, stopped and watched: one driver for each kind of process control."""
