# make check: the inner loop, under 90 s. Everything else is in .ci/run.
.PHONY: check test slow ci pins

run = unset PYTHONDONTWRITEBYTECODE; uv run --group lint

check:
	$(run) ruff check .
	$(run) ruff format --check .
	$(run) mypy
	$(run) pytest -x -q -m "not slow and not browser and not long"

test:
	uv run pytest

slow:
	uv run pytest --run-slow -m slow

ci:
	bash .ci/run

# Writes the versions installed here into pyproject.toml: run it after the tests have passed with newer ones.
pins:
	$(run) python scripts/pin.py
