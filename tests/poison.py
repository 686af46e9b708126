"""A training whose loss is NaN, for tests of what then happens."""

from trials.template import IGNORED


def nothing_to_learn(collate):
    """Training whose weights become NaN, as a rate far too high makes them; deterministic on every machine."""

    def poisoned(rows, pad_id):
        batch = collate(rows, pad_id)
        batch["labels"][:] = IGNORED  # a mean over no token at all is NaN
        return batch

    return poisoned
