"""Mitigations that change training."""
