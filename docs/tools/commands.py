"""Writes docs/commands.md from the program's own help: `python docs/tools/commands.py`."""

from pathlib import Path

import typer.main

from ttl_deploy_cli.main import app

PAGE = Path(__file__).resolve().parents[1] / "commands.md"
_WIDTH = 110
_HEAD = """# Commands

This page is what `ttl-deploy COMMAND --help` prints; `python docs/tools/commands.py` writes it. Values in square
brackets are what holds where nothing is given. Every option can also stand in a file or in the environment:
[settings.md](settings.md).
"""


def render_commands() -> str:
    """Return the whole page."""
    root = typer.main.get_command(app)
    above = root.context_class(root, info_name="ttl-deploy", terminal_width=_WIDTH, max_content_width=_WIDTH)
    parts = [_HEAD, f"```text\n{root.get_help(above)}\n```\n"]
    for name, command in root.commands.items():
        context = command.context_class(
            command, info_name=name, parent=above, terminal_width=_WIDTH, max_content_width=_WIDTH
        )
        parts.append(f"## {name}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(render_commands(), encoding="utf-8")
