"""Where testbeds come from."""
