from chassis.migrations import env_run
from orders.models import Base

env_run(Base.metadata)
