"""`python -m net.resolver`."""

from __future__ import annotations

import sys

from net.resolver.main import main

sys.exit(main())
