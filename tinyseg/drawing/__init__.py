"""Pictures and charts: arrays in, arrays (H, W, 3) uint8 or PNG files out; no tinygrad."""
