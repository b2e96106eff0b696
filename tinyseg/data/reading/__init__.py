"""Files of a folder to images and labels: layouts, decoding, label values."""
