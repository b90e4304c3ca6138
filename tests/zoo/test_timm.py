"""The zoo: what timm adds in kinds."""

import pytest

from tests.zoo.zoo import TIMM, asked, check


@pytest.mark.parametrize("name", asked(TIMM))
def test_a_network_is_served_as_is_expected(name):
    check(name)
