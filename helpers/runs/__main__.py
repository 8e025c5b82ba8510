"""`python -m helpers.runs`, for grids and for notebooks."""

import sys

from helpers.runs.batch import main

sys.exit(main())
