import sys

from attnpool_backbones.cli import main

sys.exit(main())
