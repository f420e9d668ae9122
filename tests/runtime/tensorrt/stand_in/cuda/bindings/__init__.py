"""Stands in for cuda-python."""
