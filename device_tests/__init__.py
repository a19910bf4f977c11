"""The same test on a real board and on an emulated one."""
