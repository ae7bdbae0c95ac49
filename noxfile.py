"""Run the tests of methods, providers and models on the lowest and on the newest supported versions."""

from __future__ import annotations

import os

import nox

nox.options.sessions = ["lowest", "newest"]
nox.options.default_venv_backend = "venv"

PROJECT = nox.project.load_toml("pyproject.toml")["project"]
TESTS = ("methods", "providers", "models", "editing", "training", "search", "api", "contrib")
READ_ONLY = ("registry", "suite", "results", "leaderboard", "cli", "errors", "contracts")
TORCH = os.environ.get("TORCH")
"""A requirement that stands for torch in both sessions, say a build for CPUs: `torch==2.13.0`."""


def tested(session: nox.Session, requirements: list[str], folders: tuple[str, ...]) -> None:
    """Install the checkout with exactly these requirements, say what came, and run the tests in some folders."""
    session.install("-e", ".[test]", *requirements)
    session.run("python", "-m", "pip", "list")
    session.run("pytest", *(session.posargs or [f"tests/{folder}" for folder in folders]))


@nox.session
def lowest(session: nox.Session) -> None:
    """The lowest version of every dependency that pyproject.toml claims."""
    floors = [requirement.replace(">=", "==") for requirement in PROJECT["dependencies"]]
    pinned = [TORCH if TORCH and floor.startswith("torch==") else floor for floor in floors]
    tested(session, pinned, TESTS + READ_ONLY)


@nox.session
def newest(session: nox.Session) -> None:
    """The newest version of every dependency that can be installed."""
    tested(session, [TORCH] if TORCH else [], TESTS)
