from chassis.migrations import env_run
from trainers.models import metadata

env_run(metadata)
