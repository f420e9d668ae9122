"""A backbone as a graph: traced, measured, and what lies at its nodes."""
