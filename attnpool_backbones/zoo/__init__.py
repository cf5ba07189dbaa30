"""The model zoo: sizes of configs, metafiles, and the tables rendered from them."""
