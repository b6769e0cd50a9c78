"""ConvBoard's sessions: each installs what it needs, pinned, and does one thing."""

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["tests", "lint", "types", "layers"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
# torch, timm and MLflow take seconds to compile: once is enough, whatever the shell says.
KEEP_BYTECODE = {"PYTHONDONTWRITEBYTECODE": None}


def install(session: nox.Session, *groups: str) -> None:
    """Install the whole project and the dependencies of `groups`, pinned by constraints.txt."""
    session.install(
        "--constraints",
        "constraints.txt",
        "--editable",
        ".[bench,fast]",
        *nox.project.dependency_groups(PYPROJECT, "headless", *groups),
    )


def convboard(session: nox.Session, *arguments: str) -> None:
    """Run the project's command."""
    session.run("convboard", *arguments, *session.posargs, env=KEEP_BYTECODE)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the quick suite, measure its speed and write the site: the main job."""
    install(session)
    convboard(session, "bench", "quick")


@nox.session
def perf(session: nox.Session) -> None:
    """Time the operators' exact forms beside their public code, and the machine's ceiling."""
    install(session)
    convboard(session, "perf")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests: the quick ones first, then the slow ones."""
    install(session, "test")
    env = {**KEEP_BYTECODE, "OMP_NUM_THREADS": "1"}  # two processes share the cores
    if session.posargs:
        session.run("pytest", *session.posargs, env=env)
        return
    two = ("-n", "2", "--dist", "worksteal")
    session.run("pytest", "-m", "not slow", *two, env=env)
    session.run("pytest", "-m", "slow", *two, env=env)


@nox.session
def readme(session: nox.Session) -> None:
    """Draw README's board and its table anew, from the published records."""
    install(session)
    session.run("python", "-m", "leaderboard.readme")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install(
        "--constraints", "constraints.txt", *nox.project.dependency_groups(PYPROJECT, "lint")
    )
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of bench, tasks and leaderboard, strictly."""
    install(session, "types")
    session.run("mypy")


@nox.session
def layers(session: nox.Session) -> None:
    """Check that upper layers import lower ones, never the reverse: by reading, not importing."""
    session.install(
        "--constraints", "constraints.txt", *nox.project.dependency_groups(PYPROJECT, "layers")
    )
    session.run("lint-imports")


@nox.session
def site(session: nox.Session) -> None:
    """Write the site from the records of runs/ into site/."""
    install(session)
    convboard(session, "site")


@nox.session
def ui(session: nox.Session) -> None:
    """Open the MLflow UI over runs/, on loopback."""
    install(session)
    convboard(session, "ui")


@nox.session(venv_backend="none")
def pin(session: nox.Session) -> None:
    """Compile constraints.txt anew: versions and hashes, no addresses."""
    groups = [
        argument for group in PYPROJECT["dependency-groups"] for argument in ("--group", group)
    ]
    session.run(
        "uv",
        "pip",
        "compile",
        "pyproject.toml",
        *groups,
        "--all-extras",
        "--universal",
        "--python-version",
        "3.11",
        "--generate-hashes",
        "--no-annotate",
        "--no-emit-index-url",
        "--no-emit-find-links",
        "--no-header",
        "--output-file",
        "constraints.txt",
        "--quiet",
        *session.posargs,
        external=True,
    )
