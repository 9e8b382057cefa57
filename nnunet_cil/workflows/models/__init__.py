"""One trained model: extended, exported, described."""
