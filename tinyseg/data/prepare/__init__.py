"""Images and labels to what the network gets, and back to the image's size."""
