"""What a run leaves on disk: checkpoints and the log."""
