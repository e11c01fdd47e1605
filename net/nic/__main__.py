"""`python -m net.nic`."""

from __future__ import annotations

import sys

from net.nic.main import main

sys.exit(main())
