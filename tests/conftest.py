"""One thread for each process of the tests: several would wait for one another wherever other tests run beside them."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, here and in processes that tests start
