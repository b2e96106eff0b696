"""A jitted function that is guarded on every call, proven once and kept on disk."""
