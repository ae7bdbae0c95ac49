"""Mitigations that train on."""
