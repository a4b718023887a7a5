"""What a run leaves behind, so that it can be told, done again, and mended where it has holes."""
