"""A folder of images with labels as people have it, read, checked and made ready for training."""
