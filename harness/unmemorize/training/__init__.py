"""The one training loop, and the two families of methods that go through it."""
