"""Unlearning that removes single weights."""
