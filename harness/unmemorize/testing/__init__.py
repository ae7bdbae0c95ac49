"""Small real models for the tests of plugins: GPT-2, GPT-NeoX and Llama, with random weights."""

from unmemorize.testing.models import ARCHITECTURES, tiny_model, tiny_sequences, tiny_testbed

__all__ = ["ARCHITECTURES", "tiny_model", "tiny_sequences", "tiny_testbed"]
