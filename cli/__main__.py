"""Runs the command line as `python -m ttl_deploy_cli`."""

from .main import main

main()
