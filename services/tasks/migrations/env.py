from chassis.migrations import env_run
from tasks.models import metadata

env_run(metadata)
