"""`make crash`."""

import sys

from .whole import main  # workers must find what they are to do in a module that is not this one

if __name__ == "__main__":
    sys.exit(main())
