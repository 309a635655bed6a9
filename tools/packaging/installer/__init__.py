"""What `install.sh` does on the box. Only Python's standard library: it runs before anything is installed.

/opt/strip-agent/<version>/      one version: an environment of its own, units, this installer; never changed
/opt/strip-agent/current         a link to the one that runs; switched in one rename
/opt/strip-agent/previous        a link to the one before
/opt/strip-agent/change.json     there while one version takes the other's place
"""
