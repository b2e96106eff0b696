"""What is in a dataset, and what could go wrong with it."""
