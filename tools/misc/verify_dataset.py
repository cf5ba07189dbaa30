"""Finds all that is wrong with the data of a config, as `attnpool verify` does.

python tools/misc/verify_dataset.py configs/poolformer/retinanet_poolformer-s12_fpn_1x_coco.py
"""

import sys

from attnpool_backbones import cli


def main() -> int:
    return cli.main(['verify', *sys.argv[1:]])


if __name__ == '__main__':
    sys.exit(main())
