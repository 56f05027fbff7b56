from auth.models import Base
from chassis.migrations import env_run

env_run(Base.metadata)
