"""Everything that depends on tinygrad's version or on private parts of it."""
