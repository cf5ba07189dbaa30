"""The ideas, one small file each; the files of ``backbones/`` put them together."""
