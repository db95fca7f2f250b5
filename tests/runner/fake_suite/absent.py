"""A task that cannot even be imported."""

import a_framework_that_is_not_there  # type: ignore[import-not-found]

RECIPES = {"demo": a_framework_that_is_not_there.Config()}
