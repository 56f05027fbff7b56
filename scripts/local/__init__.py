"""The local runner: the services and the gateway as processes of this machine, behind `make up`."""
