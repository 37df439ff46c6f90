"""One analysis of some checkpoints per module, each ending in a View."""
