"""Reading annotation files and counting classes."""
