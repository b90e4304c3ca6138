"""The zoo: torchvision's families."""

import pytest

from tests.zoo.zoo import TORCHVISION, asked, check


@pytest.mark.parametrize("name", asked(TORCHVISION))
def test_a_network_is_served_as_is_expected(name):
    check(name)
