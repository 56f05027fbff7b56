from chassis.migrations import env_run
from notifications.models import Base

env_run(Base.metadata)
