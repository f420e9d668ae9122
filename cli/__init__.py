"""The command line: parse, make one library call, render. Installed as `ttl_deploy_cli`."""
