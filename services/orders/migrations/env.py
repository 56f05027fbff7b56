from chassis.migrations import env_run
from orders.models import metadata

env_run(metadata)
