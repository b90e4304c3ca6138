"""Each fault once, at a random moment: no record is lost or doubled, the ledger is right, the table the same."""

import subprocess

import pytest

from tests.faults.comparison import Comparison
from tests.faults.injected import FAULTS, undisturbed
from tests.faults.machine import family, listening

pytestmark = [
    pytest.mark.fault,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]
SAID = {
    "a trial's newest state truncated": "went on from an earlier state",
    "a second driver on the same comparison": "error: another process is at work in",
    "the head lost with its disk and MLflow, --resume": "MLflow has lost the comparison",
    "the disk full, --resume": "No space left on device",
}


def mounts():
    """Why no file system can be mounted here; None where one can."""
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True
    )
    return None if tried.returncode == 0 else f"namespaces are not allowed here: {tried.stderr.strip()}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("whole"))


def test_an_undisturbed_one_charges_exactly_what_its_networks_were_asked_for(whole):
    outcome = whole.outcome(whole)
    assert not outcome.lost + outcome.doubled + outcome.wrong
    assert outcome.charged == pytest.approx(outcome.done)


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_is_lost(name, whole, tmp_path):
    if "disk" in name and (reason := mounts()):
        pytest.skip(reason)
    comparison = FAULTS[name](tmp_path, 0, times=1)
    try:
        assert comparison.search.status == 0, comparison.said
        outcome = comparison.outcome(whole)
    finally:
        comparison.close()
    assert outcome.injected > 0
    assert not outcome.lost + outcome.doubled + outcome.wrong
    assert outcome.equal
    assert abs(outcome.unexplained) < 0.1, "the ledger does not tell what was done"
    assert any(SAID.get(name, "") in line for line in outcome.said)
    assert not any("Traceback" in line for line in outcome.said)


def test_nothing_listens_beyond_loopback(tmp_path):
    comparison = Comparison(tmp_path).start()
    comparison.wait_for_reports(1)
    pid = comparison.search.process.pid
    addresses = listening([pid, *family(pid)])
    comparison.kill_the_driver(alone=False)
    local = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
    assert addresses and set(addresses) <= local
