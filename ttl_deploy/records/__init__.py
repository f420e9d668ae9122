"""The frozen dataclasses that cross a folder border, by subject; `codec` turns them into JSON and back.

Inside the program units are SI (seconds, bytes); prefixes appear only when rendering.
"""
