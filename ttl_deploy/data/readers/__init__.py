"""Ways in which labelled images lie on a disk, one module each, behind `plugins.Reader`."""
