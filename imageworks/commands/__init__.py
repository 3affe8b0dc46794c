"""One module per verb. Imported by `imageworks.cli` when a verb is called, and by nobody else."""
