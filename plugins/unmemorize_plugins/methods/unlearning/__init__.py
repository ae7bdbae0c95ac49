"""Mitigations that edit a trained model."""
