# Recipes for people and for the workflows in .github. Each runs the same steps as `.ci/run`.

# Build once: the workspace is built in one way for all recipes.
export CARGO_INCREMENTAL := "0"

# List the recipes.
default:
    @just --list

# Run all checks, or the named steps.
check *STEPS:
    cargo e2e check {{ STEPS }}

# Format the code.
fmt:
    cargo fmt --all

# Run clippy on all code; warnings are errors.
clippy:
    cargo e2e check clippy

# Run the tests that need no other program.
unit:
    cargo e2e check unit

# Run the checks of a push: no root, no Go, a few minutes.
quick:
    cargo e2e check fmt clippy unit doc typos deny machete book

# Run one step of the end-to-end tests. Needs root on Debian, and Go.
e2e STEP:
    cargo e2e check {{ STEP }}

# Run all benchmarks, or the named ones.
bench *NAMES:
    cargo e2e bench {{ NAMES }}

# Build the book in target/book and check its links.
docs:
    cargo e2e check book

# Build the API documentation; warnings are errors.
doc:
    cargo e2e check doc
