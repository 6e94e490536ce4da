"""The table of hostile models, all or those named; `bugs`: whether each seeded bug is caught. Exit code 1 when not all is well."""

import sys

from . import mutants
from .live import run

if sys.argv[1:] == ["bugs"]:
    caught, bugs = mutants.run(lambda line: print(line, flush=True))
    sys.exit(caught < bugs)
contained, models, failures = run(lambda line: print(line, flush=True), sys.argv[1:])
for failure in failures:
    print(failure)
sys.exit(contained < models)
