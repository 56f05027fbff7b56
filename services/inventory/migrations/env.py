from chassis.migrations import env_run
from inventory.models import metadata

env_run(metadata)
