"""Everything that looks at a job before it starts."""
