"""Python runs this as it starts in the tests and in every process that they start (conftest.py puts it on the path).

A quarter of the time in which torch, transformers and trl are imported went into looking for garbage among objects
that stay. So the search is made less often, in some hundred processes that import them.
"""

import gc

gc.set_threshold(100_000, 50, 100)
