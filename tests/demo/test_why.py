"""The sentences of scene (b), from the machine's link matrix."""

from __future__ import annotations

from muster import machines
from muster_dev.demo import locality

PAIRS = machines.machine("a100-pcie")


def test_sentence_names_the_links_of_the_chosen_gpus_and_of_the_first_by_index() -> None:
    sentence = locality.why_sensitive(PAIRS, taken=[0], chosen=[2, 3])
    assert "GPUs 2+3, joined by NV12, 240 GB/s" in sentence
    assert "1+2, are joined by NODE, 9 GB/s" in sentence


def test_sentence_names_the_broken_pair_and_the_unbroken_ones() -> None:
    sentence = locality.why_insensitive(PAIRS, taken=[0], sensitive=[2, 3], chosen=[1])
    assert "the other half of the pair of the neighbour's GPU 0" in sentence
    assert "the pairs 4+5, 6+7 stay whole" in sentence


def test_choice_that_breaks_a_pair_is_not_called_the_other_half() -> None:
    sentence = locality.why_insensitive(PAIRS, taken=[0], sensitive=[2, 3], chosen=[4])
    assert "other half" not in sentence
    assert "the pairs 6+7 stay whole" in sentence
