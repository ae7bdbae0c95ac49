"""Unlearning that removes neurons."""
