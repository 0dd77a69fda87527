"""Writers that share a table and are killed: commits are of whole steps, or as it was agreed."""

from __future__ import annotations

import pytest

from mmembed.storage.shared_journal import SharedJournal
from mmembed.storage.shared_store import SharedStore
from mmembed.storage.sharing import SharedLock
from tests.storage.mutation import put_in

from .hogwild import Campaign

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.mark.parametrize("policy", ["rollback", "accept"])
def test_writers_that_are_killed_leave_commits_of_whole_steps(quick_path, policy):
    campaign = Campaign(quick_path, policy)
    campaign.run(25)

    assert campaign.commits > 10
    assert campaign.torn <= (0 if policy == "rollback" else 25)


@pytest.mark.long
@pytest.mark.parametrize("policy", ["rollback", "accept"])
def test_a_thousand_killed_writers_leave_commits_of_whole_steps(quick_path, policy):
    campaign = Campaign(quick_path, policy, writers=4, seed=2)
    campaign.run(1_000)

    assert campaign.commits > 500


MISTAKES = {
    "steps are not marked": (SharedStore, "writing", "self._lock.begin_step()", "pass"),
    "a commit does not wait for steps": (SharedStore, "_settle_deaths", "if not active:", "if 1:"),
    "the dead are not seen": (SharedLock, "steps", "dead[place] = kind", "pass"),
    "what others saved is not known": (
        *(SharedJournal, "_follow", "self._seen.add(ids)", "pass"),
        *("self._link = Link(", "return Link("),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_caught(quick_path, monkeypatch, mistake):
    put_in(monkeypatch, *mistake)

    with pytest.raises(AssertionError):
        Campaign(quick_path, "rollback").run(60)
