from chassis.migrations import env_run
from items.models import metadata

env_run(metadata)
