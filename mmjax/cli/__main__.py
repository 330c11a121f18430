"""`python -m mmjax.cli`, where the command itself is not on the path."""

import sys

from mmjax.cli import main

sys.exit(main())
