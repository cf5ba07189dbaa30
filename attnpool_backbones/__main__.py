"""``python -m attnpool_backbones``: the command of the package."""

import sys

from attnpool_backbones.cli import main

sys.exit(main())
