"""Write or check the dashboards."""

import sys

from observability import generated
from observability.dashboards import FOLDER, PATTERN, files

if __name__ == "__main__":
    sys.exit(generated.main("observability.dashboards", FOLDER, PATTERN, files))
