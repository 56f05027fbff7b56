"""Tools for a cluster: doctor, deploy, status and smoke, behind `make`."""
