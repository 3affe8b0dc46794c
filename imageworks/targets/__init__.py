"""Plan -> files. Pure: an emitter returns artifacts and never touches the disk, the clock or the environment."""
