"""Clients of the services, for users and for the services among themselves."""
