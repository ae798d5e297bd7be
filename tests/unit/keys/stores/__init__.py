"""Stores and wrapping keys, each alone."""
