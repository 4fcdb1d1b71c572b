"""Stubs generated from protos/newt/v1; do not edit."""
