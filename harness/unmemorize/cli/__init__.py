"""The command line: one file per command, imported only when it is called."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import warnings
from contextlib import suppress
from typing import Any

import click

from unmemorize.cli.streams import open_streams, silence
from unmemorize.errors import CacheWarning, UnmemorizeError
from unmemorize.files.installed import isolate_malformed
from unmemorize.untrusted import plain

# When it is imported, so that worker processes, which import the main program again, have it too.
isolate_malformed()

COMMANDS = {
    "run": "Run a suite (or what is missing of it) and print its leaderboard.",
    "plan": "Show which cells a suite has, which are done, and how long the rest may take.",
    "list": "List methods, metrics, providers, layouts, executors and suites.",
    "show": "Show one of them: what it does, its settings, where it comes from.",
    "board": "Build the leaderboard of results folders, also while a run is going on.",
    "find": "Find which windows of some texts a model regurgitates.",
    "mitigate": "Make a model of your own forget a file of texts, and save the edited model.",
    "export": "Write a testbed to a folder: its model, its sequences, and where they are from.",
    "new": "Write a plugin package of your own, to start from.",
    "check": "Check a plugin against every rule of its contract, in seconds.",
    "plugins": "Show which plugins are loaded, and which are broken and why.",
}

UNREAD = 141
"""The status of a command whose output nobody reads any more: that of a program which SIGPIPE has ended."""


class _Lazy(click.Group):
    """A group whose help needs no command's imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS]  # `list` is a command of this package once it has been imported

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"{__name__}.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from unmemorize.errors import nearest

            raise click.UsageError(f"no command {args[0]!r}; did you mean {nearest(args[0], COMMANDS, most=3)[0]!r}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # where a command has nothing of its own to say
            click.echo("\ninterrupted: nothing was changed; the same command starts again", err=True)
            ctx.exit(130)
        except click.ClickException as error:  # names files, as the shell found them
            vars(error)["message"] = plain(error.message)
            raise
        except BrokenPipeError:  # the reader of the output has enough
            silence()
            ctx.exit(UNREAD)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="unmemorize", message="unmemorize %(version)s")
@click.option("--traceback", is_flag=True, expose_value=False, help="Show the whole traceback of an error.")
def group() -> None:
    """Benchmark, compare and apply mitigations of memorization in language models.

    Start with: unmemorize run quick
    """


def main() -> None:
    """Run the command line; a user's error is printed in its three parts and ends with its status, a bug with 70."""
    open_streams()
    warnings.showwarning = _show_warning
    try:
        _check_working_folder()
        group(standalone_mode=True, color=False if os.environ.get("NO_COLOR") else None)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        from unmemorize.cli.failures import in_words, status_of

        in_parts = error if isinstance(error, UnmemorizeError) else in_words(error)
        with suppress(OSError):  # nobody reads it
            if "--traceback" in sys.argv:
                click.echo(plain("".join(traceback.format_exception(error))), err=True, nl=False)
            else:
                click.echo(_shown(in_parts), err=True)
        sys.exit(status_of(error))


def _check_working_folder() -> None:
    """Refuse to start in a folder that was removed: libraries that find themselves nowhere end the process."""
    try:
        os.getcwd()
    except OSError as gone:
        raise UnmemorizeError(
            "the working folder is not there any more",
            expected="a folder from which relative paths can start",
            fix="cd to a folder that exists, then give the same command again",
        ) from gone


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Show a warning in a line: to who types a command it does not matter which line of which file gives it."""
    own = issubclass(category, CacheWarning)
    with suppress(OSError):
        click.echo(f"warning: {plain(str(message))}" + ("" if own else f" ({category.__name__})"), err=True)


def _shown(error: UnmemorizeError) -> str:
    label = click.style("error:", fg="red", bold=True)
    text = (
        f"{label} {error.what}\n"
        f"  {click.style('expected:', bold=True)} {error.expected}\n"
        f"  {click.style('fix:', bold=True)} {error.fix}"
    )
    return click.unstyle(text) if os.environ.get("NO_COLOR") else text
