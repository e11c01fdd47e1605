"""`python -m net.proxy`."""

from __future__ import annotations

import sys

from net.proxy.main import main

sys.exit(main())
