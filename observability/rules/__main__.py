"""Write or check the rule files."""

import sys

from observability import generated
from observability.rules import FOLDER, PATTERN, files

if __name__ == "__main__":
    sys.exit(generated.main("observability.rules", FOLDER, PATTERN, files))
