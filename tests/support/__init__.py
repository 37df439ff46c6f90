"""Helpers that several tests share, and slow references."""
