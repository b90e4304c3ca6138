"""What every test shares: no test touches the user's cache."""

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    os.environ["MS_AUTOML_CACHE"] = str(tmp_path_factory.mktemp("cache"))
