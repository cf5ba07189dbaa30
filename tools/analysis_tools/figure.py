"""Draws a figure of a trained model: the command ``attnpool figure`` of a clone.

python tools/analysis_tools/figure.py KIND MODEL --images SOURCE; see --help and KIND --help
"""

import sys

from attnpool_backbones.cli import main

if __name__ == '__main__':
    sys.exit(main(['figure', *sys.argv[1:]]))
