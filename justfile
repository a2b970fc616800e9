# The commands of a developer; CI runs the same ones. `just` alone lists them. CONTRIBUTING.md says more.

# Where the environment's programs are.
bin := env("HFPEER_BIN", justfile_directory() / ".venv/bin")
# Folders whose tests can run two at a time: they share nothing.
side_by_side := "tests/unit tests/contract tests/cli tests/project"
# With COVERAGE=1 the fast tests are measured, which takes them about twice the computing.
pytest := if env("COVERAGE", "") == "" { bin / "pytest" } else { bin / "coverage run -m pytest" }

[private]
default:
    @just --list --unsorted --justfile {{ justfile() }}

# Lint, format, types and import rules: some seconds.
check:
    {{ bin }}/ruff check .
    {{ bin }}/ruff format --check .
    {{ bin }}/mypy
    {{ bin }}/lint-imports --no-logo

# Unit, contract, command line and project tests, two at a time: those for every day, without the slow ones.
test-fast *options:
    {{ pytest }} -n 2 -m "not timed and not slow" {{ side_by_side }} {{ options }}

# The slow ones of them, two at a time: kills at many moments, several users, whole daemons.
test-slow *options:
    {{ pytest }} -n 2 -m "slow and not timed" {{ side_by_side }} {{ options }}

# The tests that start many daemons and real clients, two files at a time: a file's tests share their daemons.
test-swarm *options:
    {{ bin }}/pytest -n 2 --dist loadfile -m "not timed" tests/swarm tests/clients {{ options }}

# The tests that measure time, one at a time.
test-timed *options:
    {{ bin }}/pytest -m timed {{ options }}

# All tests. A part runs even if one before it has failed. The exit code is the highest of pytest's.
test *options:
    @worst=0; \
    {{ just_executable() }} test-fast {{ options }} || worst=$?; \
    {{ just_executable() }} test-slow {{ options }} || { code=$?; [ $code -lt $worst ] || worst=$code; }; \
    {{ just_executable() }} test-swarm {{ options }} || { code=$?; [ $code -lt $worst ] || worst=$code; }; \
    {{ just_executable() }} test-timed {{ options }} || { code=$?; [ $code -lt $worst ] || worst=$code; }; \
    exit $worst

# The tests that failed the last time, one at a time.
test-failed *options:
    {{ bin }}/pytest --last-failed --last-failed-no-failures none {{ options }}

# The fast and the slow tests with coverage, also of the daemons that they start; then the figure.
coverage *options:
    rm -f .coverage .coverage.*
    COVERAGE=1 {{ just_executable() }} test-fast {{ options }}
    COVERAGE=1 {{ just_executable() }} test-slow {{ options }}
    {{ just_executable() }} coverage-report

# What was measured with COVERAGE=1: the figure of each file that has gaps, and of all.
coverage-report:
    {{ bin }}/coverage combine --quiet
    {{ bin }}/coverage report --sort=miss --skip-covered

# Brings the catalogs of translations up to date with the messages of the source; says how many lack a translation.
messages:
    {{ bin }}/python -m hfpeer_cli.language.extraction

# What commands print on terminals, written anew into tests/cli/captures; look at what changed.
captures:
    HFPEER_RENEW_CAPTURES=1 {{ bin }}/pytest -q tests/cli/test_captures.py
    git diff --stat -- tests/cli/captures

# What the documents say: links, commands, messages, tables, and whether `just reference` would change something.
docs:
    {{ bin }}/pytest -q tests/project/documents

# The pages, tables and schemas that follow from the code, written anew into docs/.
reference:
    {{ bin }}/python -m docs.made

# The site of the documents, in build/site, with every link checked. Needs the `docs` extra, and no network.
site *options:
    NO_MKDOCS_2_WARNING=1 {{ bin }}/mkdocs build --strict --quiet {{ options }}

# The manifest for Kubernetes, written anew from the chart. Needs Helm.
manifest:
    @head=$(sed '/^---/Q' deploy/kubernetes/hfpeer.yaml) && \
    made=$(PATH="{{ bin }}:$PATH" helm template hfpeer deploy/helm/hfpeer | grep -v '^# Source') && \
    printf '%s\n' "$head" "$made" > deploy/kubernetes/hfpeer.yaml

# The wheel and the sdist in dist/, with the index's check of the metadata. Needs the `package` extra.
package:
    rm -rf dist
    {{ bin }}/hatchling build
    {{ bin }}/twine check --strict dist/*

# The man pages, from the text of the help: `man -M dist/man hfpeer`.
man folder="dist/man":
    {{ bin }}/hfpeer help --man {{ folder }}

# Three nodes on this machine, one of them as the hub, one killed in the middle.
demo:
    {{ bin }}/hfpeer demo

# A benchmark: `just bench transfer --rounds 1`. They are the modules of bench/.
bench name *options:
    {{ bin }}/python -m bench.{{ name }} {{ options }}

# The counts that show whether the code stays easy to find one's way in.
house *options:
    {{ bin }}/python -m bench.house {{ options }}
