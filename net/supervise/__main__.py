"""`python -m net.supervise`."""

from __future__ import annotations

import sys

from net.supervise.main import main

sys.exit(main())
