"""Makes the data, trains and evaluates a detector and a segmentor, shows a table and pictures.

python tools/quickstart.py
"""

import sys

from attnpool_backbones.cli import main

if __name__ == '__main__':
    sys.exit(main(['quickstart', *sys.argv[1:]]))
