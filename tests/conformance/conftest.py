from collections.abc import Callable

import pytest

from ms_automl.data import MultiTaskData
from ms_automl.models import MultiTaskNet
from tests.conformance.ways import Factory


@pytest.fixture(scope="module")
def make(tiny_data: MultiTaskData, tiny_network: Callable[[], MultiTaskNet]) -> Factory:
    return Factory(tiny_data, tiny_network)
